"""A mail server: takes mails from one account, as the account's owner alone, and keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.servers.process import free_port

ADDRESS = "airflow@example.com"
PASSWORD = "the-password-of-the-account"


class MailServer:
    """``mails`` are those it has accepted."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.port = free_port()

    def connection(self) -> dict[str, Any]:
        """The Airflow connection of type SMTP; without TLS, since the server is on this machine."""
        extra = {"from_email": ADDRESS, "disable_tls": True, "disable_ssl": True, "retry_limit": 0}
        account = {"login": ADDRESS, "password": PASSWORD}
        return {"conn_type": "smtp", "host": "127.0.0.1", "port": self.port, **account, "extra": extra}

    async def handle_MAIL(  # noqa: N802 - aiosmtpd names it so
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address != ADDRESS:
            return "553 5.7.1 Sender address rejected: not owned by user"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names it so
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "@" not in address:
            return "501 5.1.3 Bad recipient address syntax"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - likewise
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.strict)
        assert isinstance(mail, EmailMessage)
        if not (mail["From"] == ADDRESS and mail["To"] and mail["Subject"]):
            return "554 5.6.0 Message lacks a header"
        self.mails.append(mail)
        return "250 OK"


@contextmanager
def serve_mail() -> Iterator[MailServer]:
    """Run a mail server on 127.0.0.1 that requires a login."""
    server = MailServer()

    def authenticate(smtp: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        account = LoginPassword(ADDRESS.encode(), PASSWORD.encode())
        return AuthResult(success=given == account, handled=False)

    controller = Controller(
        server, "127.0.0.1", server.port, authenticator=authenticate, auth_required=True, auth_require_tls=False
    )
    controller.start()
    try:
        yield server
    finally:
        controller.stop()
