"""Which certificate authorities (CAs) the environment names, and why a server's certificate is refused."""

from __future__ import annotations

import os
import ssl

from airflow_provider_flux.exceptions import FluxConfigurationError

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Environment variables that name trusted CAs: first those that httpx reads, then those of requests."""


def ca_source() -> tuple[str, str]:
    """Return the first such variable that is set, and its path; both empty if none is."""
    return next(((name, path) for name in CA_VARIABLES if (path := os.environ.get(name))), ("", ""))


def load_ca(variable: str, path: str) -> ssl.SSLContext:
    """Return a TLS context that trusts the CAs at ``path``.

    :param variable: The environment variable that names the path, for the error message.
    :raises FluxConfigurationError: if it cannot be read.
    """
    try:
        if any(map(os.path.isdir, path.split(os.pathsep))):  # OpenSSL takes several folders
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise FluxConfigurationError(
            f"The environment variable {variable} names {path!r}, which cannot be read as a file or folder of CA "
            f"certificates ({error.strerror or error})."
        ) from error


def certificate_problem(error: BaseException | None) -> str | None:
    """Return why a server's certificate was refused and how to fix that; None if ``error`` has another cause."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    error = getattr(error, "certificate_error", error)  # aiohttp wraps it
    variable, path = ca_source()
    trusted = f"the CAs of {variable}={path}" if variable else "certifi's list of CAs"
    return (
        f"its certificate was refused ({getattr(error, 'verify_message', '') or error}). It was checked with "
        f"{trusted}; if a proxy or a private CA signed it, SSL_CERT_FILE or REQUESTS_CA_BUNDLE must name a file with "
        "that CA"
    )
