"""Create the users of FAB's auth manager, and a role that may read one DAG only: ``roles.py USERS PASSWORDS``."""

from __future__ import annotations

import json
import sys

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

ONE_DAG = "flux_quickstart"


def main(users: dict[str, str], passwords: dict[str, str]) -> None:
    """Add each user with its role."""
    with get_application_builder() as builder:
        manager = builder.sm
        viewer = manager.find_role("Viewer")
        own = [permission for permission in viewer.permissions if permission.resource.name != "DAGs"]
        gardener = manager.add_role("Gardener")
        for permission in own:
            manager.add_permission_to_role(gardener, permission)
        manager.add_permission_to_role(gardener, manager.create_permission("can_read", f"DAG:{ONE_DAG}"))
        for name, role in users.items():
            manager.add_user(name, name, "-", f"{name}@example.com", manager.find_role(role), passwords[name])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
