"""A small client of Airflow's public REST API (v2): what a user would click, as methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from tests.servers.process import wait_for

Json = dict[str, Any]
RUN_ENDED = {"success", "failed"}
# What Airflow adds to each log entry; of no use to someone who asked for this very task's log.
LOG_METADATA = {
    *("timestamp", "level", "event", "error_detail", "logger", "filename", "lineno", "loc"),
    *("dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id", "ti", "correlation_id"),
}


class ApiError(RuntimeError):
    """Airflow refused a request."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class AirflowApi:
    """``url`` is where the api-server answers; without a user, everybody is an admin there and needs no password."""

    def __init__(self, url: str, user: str | None = None, password: str | None = None) -> None:
        self.url = url
        self._login = {"username": user, "password": password} if user else None
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy between us and 127.0.0.1
        # SQLite under load answers a few requests with "database is locked"; asking again is the cure.
        # Nothing was done then, so that this is right for POST and PATCH too.
        retry = Retry(
            5,
            backoff_factor=0.3,
            status_forcelist=[500, 503],
            allowed_methods=None,
            raise_on_status=False,
            connect=0,
            read=0,
        )
        self.session.mount("http://", HTTPAdapter(max_retries=retry))

    def request(self, method: str, path: str, *, params: Json | None = None, body: Json | None = None) -> Any:
        """``path`` is relative to /api/v2; returns the parsed answer, raises ApiError unless 2xx."""
        self.log_in()
        response = self.session.request(
            method,
            f"{self.url}/api/v2{path}",
            params=params,
            json=body,
            headers={"Accept": "application/json"},
            timeout=60,
        )
        if not response.ok:
            answer = f"{response.status_code} {response.text[:2000]}"
            raise ApiError(response.status_code, f"{method} {path}: {answer}")
        return response.json() if response.content else None

    def log_in(self) -> AirflowApi:
        """Give the session a token, unless it has one."""
        if "Authorization" not in self.session.headers:
            method = "POST" if self._login else "GET"
            answer = self.session.request(method, f"{self.url}/auth/token", json=self._login, timeout=60)
            self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return self

    # DAGs and runs

    def import_errors(self) -> dict[str, str]:
        """File name -> traceback, of every DAG file that could not be imported."""
        errors = self.request("GET", "/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def wait_for_dag(self, dag_id: str, timeout: float = 120) -> Json:
        def find() -> Json | None:
            try:
                return self.request("GET", f"/dags/{_quote(dag_id)}")
            except ApiError as error:
                if error.status != 404:
                    raise
            if errors := self.import_errors():
                listed = "\n".join(f"{name}:\n{trace}" for name, trace in errors.items())
                raise ImportError(f"DAG {dag_id} is not there, and these files cannot be imported\n{listed}")
            return None

        return wait_for(find, timeout=timeout, what=f"DAG {dag_id}")

    def pause(self, dag_id: str, is_paused: bool = True) -> None:
        """A paused DAG's tasks are not sent to workers; those that wait in the triggerer wait on."""
        self.request("PATCH", f"/dags/{_quote(dag_id)}", body={"is_paused": is_paused})

    def trigger(self, dag_id: str, conf: Json | None = None, logical_date: str | None = None) -> str:
        """Unpause the DAG and start a run; returns the run id."""
        self.pause(dag_id, False)
        body = {"logical_date": logical_date, "conf": conf or {}}
        return self.request("POST", f"/dags/{_quote(dag_id)}/dagRuns", body=body)["dag_run_id"]

    def backfill(self, dag_id: str, logical_date: str) -> str:
        """Let Airflow make the run of one date, which has none; returns the run id."""
        body = {"dag_id": dag_id, "from_date": logical_date, "to_date": logical_date, "dag_run_conf": {}}

        def ask() -> Any:
            try:
                return self.request("POST", "/backfills", body=body)
            except ApiError as error:
                if error.status not in (409, 503):  # SQLite was locked by another writer, perhaps half-way
                    raise
            for half in self.request("GET", "/backfills", params={"dag_id": dag_id})["backfills"]:
                if not half["completed_at"]:
                    self.request("PUT", f"/backfills/{half['id']}/cancel")
            return None

        wait_for(ask, timeout=60, what=f"a backfill of {dag_id}")
        runs = self.request("GET", f"/dags/{_quote(dag_id)}/dagRuns", params={"run_type": "backfill"})["dag_runs"]
        (run_id,) = (run["dag_run_id"] for run in runs)
        return run_id

    def run(self, dag_id: str, run_id: str) -> Json:
        return self.request("GET", _run_path(dag_id, run_id))

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 300,
        on_change: Callable[[Json], None] | None = None,
    ) -> str:
        """Wait until the run ended; returns its state.

        ``on_change`` is called with each task instance that is in another state than when last seen.
        """
        seen: dict[tuple[str, int], str | None] = {}

        def ended() -> str | None:
            state = self.run(dag_id, run_id)["state"]  # asked first, so that no task's last state is missed
            for ti in self.task_instances(dag_id, run_id) if on_change else ():
                key = (ti["task_id"], ti["map_index"])
                if seen.get(key) != ti["state"] and on_change:
                    on_change(ti)
                seen[key] = ti["state"]
            return state if state in RUN_ENDED else None

        return wait_for(ended, timeout=timeout, what=f"the end of {dag_id} {run_id}", interval=0.5)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        self.request("PATCH", _run_path(dag_id, run_id), body={"state": state})

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Run all of its tasks again."""
        body = {"dry_run": False, "only_failed": False}
        self.request("POST", f"{_run_path(dag_id, run_id)}/clear", body=body)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        self.request("DELETE", _run_path(dag_id, run_id))

    # Task instances

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """All of a run, every map index of a mapped task for itself."""
        found: list[Json] = []
        while True:
            params = {"limit": 100, "offset": len(found), "order_by": "id"}
            page = self.request("GET", f"{_run_path(dag_id, run_id)}/taskInstances", params=params)
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        return self.request("GET", _task_path(dag_id, run_id, task_id, map_index))

    def wait_for_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Iterable[str],
        map_index: int = -1,
        timeout: float = 120,
    ) -> Json:
        """Wait until the task is in one of the states, e.g. ``["deferred"]``."""
        wanted = set(states)

        def reached() -> Json | None:
            ti = self.task_instance(dag_id, run_id, task_id, map_index)
            return ti if ti["state"] in wanted else None

        what = f"{task_id}[{map_index}] to be {' or '.join(sorted(wanted))}"
        return wait_for(reached, timeout=timeout, what=what)

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """The value as its author pushed it (JSON types), None if there is none."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/xcomEntries/{_quote(key)}"
        try:
            return self.request("GET", path, params={"map_index": map_index, "deserialize": True})["value"]
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str]:
        """What the operator's extra links lead to, by name; told a moment after the task's state."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/links"

        def told() -> dict[str, str] | None:
            links: dict[str, str | None] = self.request("GET", path)["extra_links"]
            known = {name: link for name, link in links.items() if link}
            return known if len(known) == len(links) else None

        return wait_for(told, timeout=30, what=f"the links of {task_id}")

    def request_to_people(self, dag_id: str, run_id: str, task_id: str) -> Json:
        """What a human-in-the-loop task asks: subject, body, options."""
        return self.request("GET", f"{_run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/-1/hitlDetails")

    def answer_request(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """As the person would who is asked by a human-in-the-loop task."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/-1/hitlDetails"
        self.request("PATCH", path, body={"chosen_options": [option], "params_input": {}})

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/logs/{try_number}"
        answer = self.request("GET", path, params={"map_index": map_index, "full_content": True})
        return "\n".join(_log_line(entry) for entry in answer["content"])

    def clear(self, dag_id: str, run_id: str, task_ids: Iterable[str | tuple[str, int]], **options: Any) -> None:
        """Run the tasks again; ``(task_id, map_index)`` names one of a mapped task."""
        body = {
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "dry_run": False,
            "only_failed": False,
            **options,
        }
        self.request("POST", f"/dags/{_quote(dag_id)}/clearTaskInstances", body=body)

    def set_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task as success, failed or skipped."""
        path = _task_path(dag_id, run_id, task_id, map_index)
        self.request("PATCH", path, body={"new_state": state})

    # Connections

    def test_connection(self, payload: Json) -> Json:
        """What the Test button does: ``{"status": bool, "message": str}``; ``extra`` may be a dict."""
        body = {"connection_id": "tested", **payload}
        if isinstance(body.get("extra"), dict):
            body["extra"] = json.dumps(body["extra"])
        return self.request("POST", "/connections/test", body=body)


def _quote(part: str) -> str:
    return quote(part, safe="")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}"


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _log_line(entry: Json | str) -> str:
    """One entry of a task log as text: level and event, what else its author logged, the error if any."""
    if isinstance(entry, str):
        return entry
    rest = {name: value for name, value in entry.items() if name not in LOG_METADATA}
    line = f"{entry.get('level', 'info').upper():8}{entry['event']} {json.dumps(rest) if rest else ''}"
    errors = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in entry.get("error_detail") or ()]
    return "\n  ".join([line.rstrip(), *errors])
