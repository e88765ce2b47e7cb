"""A team's stack from nothing (`make up`) in a folder of its own, and a real browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
STAGE = {"batch": 2, "crop": 16, "learning_rate": 1e-4, "checkpoint_every": 2, "log_every": 1}
NOISE = {
    "preset": "tiny",
    "model": {"channels": [4, 4, 8, 8], "width": 24, "depth": 1, "heads": 2},
    "data": {"stores": ["replaced"], "region": 64},
    "pae": STAGE | {"steps": 3},
    "pdit": STAGE | {"steps": 4, "train_prompts": True},
}
DOOMED = {
    "name": "doomed",
    "entrypoint": "flows/generate_synthetic_corpus.py:generate_synthetic_corpus",
    "tags": ["pngnoise"],
    "work_pool": {"name": "cpu", "job_variables": {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}},
}
_TRIES = 5
BROWSER = os.environ.get("PNGNOISE_BROWSER", "chromium")
PICTURES = os.environ.get("PNGNOISE_PICTURES")
"""Where screenshots go: docs/pictures by `make pictures`, else test output."""


@dataclass
class Team:
    """The stack, and questions to the API of its server."""

    folder: Path
    variables: dict[str, str]
    api: str
    endpoint: str
    notified: list[dict[str, Any]] = field(default_factory=list)

    def make(self, target: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`make up` and so on, as in a fresh shell."""
        ours = ("PREFECT", "AWS", "PNGNOISE", "MAKE", "MFLAGS")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        done = subprocess.run(
            ["make", "--no-print-directory", target],
            cwd=ROOT,
            env=clean | self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done

    def logs(self) -> str:
        """The ends of all logs, for whoever reads why a test failed."""
        files = sorted(self.folder.glob("stack/*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def ask(self, method: str, path: str, **content: Any) -> Any:
        """One request to the API of the server; again where its SQLite was busy, as Prefect's own client does."""
        for attempt in range(_TRIES):
            answer = httpx.request(method, f"{self.api}/{path}", json=content or None, timeout=30)
            if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                break
            time.sleep(1 + attempt)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        found = self.ask("POST", "deployments/filter", deployments={"name": {"any_": [name]}})
        assert len(found) == 1, name
        return dict(found[0])

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        """Runs of a deployment, the newest last; none that are scheduled for later."""
        wanted = {"name": {"any_": [deployment]}}
        found = self.ask("POST", "flow_runs/filter", deployments=wanted, sort="START_TIME_ASC")
        return [run for run in found if run["start_time"]]

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a run by hand; returns its id."""
        location = f"deployments/{self.deployment(deployment)['id']}/create_flow_run"
        asked = {"parameters": {"parameters": parameters}} if parameters else {}
        return str(self.ask("POST", location, state={"type": "SCHEDULED"}, **asked)["id"])

    def ended(self, deployment: str, number: int = 1, seconds: float = 240) -> dict[str, Any]:
        """The ``number``-th run of a deployment when it has ended, however."""
        over = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        def look() -> dict[str, Any] | None:
            runs = self.runs(deployment)
            return runs[number - 1] if len(runs) >= number and runs[number - 1]["state"]["type"] in over else None

        return self.until(look, f"run {number} of {deployment}", seconds)

    def until(self, look: Callable[[], Any], what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := look()):
            told = [f"{run['name']}: {run['state']['type']} {run['state']['message'] or ''}" for run in self._all()]
            assert time.monotonic() < deadline, f"{what} did not end\n" + "\n".join(told) + self.logs()
            time.sleep(1)
        return found

    def _all(self) -> list[dict[str, Any]]:
        return list(self.ask("POST", "flow_runs/filter", sort="START_TIME_ASC"))

    def artifacts(self, run: str) -> dict[str, str]:
        """Of a run, by key."""
        found = self.ask("POST", "artifacts/filter", flow_runs={"id": {"any_": [run]}})
        return {artifact["key"]: str(artifact["data"]) for artifact in found}

    def object(self, key: str) -> bytes:
        """An object of the bucket; the server of the stack asks for no key."""
        answer = httpx.get(f"{self.endpoint}/pngnoise/{key}", timeout=30)
        answer.raise_for_status()
        return answer.content

    def processes(self) -> list[psutil.Process]:
        """Every process of this machine that lives in the stack's environment."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("PNGNOISE_STACK") == self.variables["PNGNOISE_STACK"]
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                continue
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found


@contextmanager
def listening(heard: list[dict[str, Any]]) -> Iterator[str]:
    """A webhook that keeps what it is told; yields its URL."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-path"
    server.shutdown()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The files of infra/ with trainings of seconds and one deployment more, on ports of its own."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "noise.yaml").write_text(yaml.safe_dump(NOISE))
    denoiser = yaml.safe_load((ROOT / "configs/denoisers/tiny.yaml").read_text())
    (folder / "denoiser.yaml").write_text(yaml.safe_dump(denoiser))
    text = (ROOT / "infra/prefect.yaml").read_text()
    for name, mine in (("models/tiny", "noise"), ("denoisers/dncnn_short", "denoiser")):
        assert text.count(f"configs/{name}.yaml") == 1
        text = text.replace(f"configs/{name}.yaml", str(folder / f"{mine}.yaml"))
    content = yaml.safe_load(text)
    content["deployments"].append(DOOMED)
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))
    prefect, s3 = free_port(), free_port()
    variables = {
        "PNGNOISE_STACK": str(folder / "stack"),
        "PNGNOISE_DEPLOYMENTS": str(folder / "prefect.yaml"),
        "PNGNOISE_PREFECT_PORT": str(prefect),
        "PNGNOISE_S3_PORT": str(s3),
        "OMP_NUM_THREADS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # a minute by default, which a test would wait
    }
    mine = Team(folder, variables, f"http://127.0.0.1:{prefect}/api", f"http://127.0.0.1:{s3}")
    with listening(mine.notified) as url:
        mine.variables["PNGNOISE_FAILURE_WEBHOOK"] = url
        yield mine
    mine.make("down", check=False)
    for process in mine.processes():
        process.kill()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[webdriver.Chrome, str], Path]:
    """Keep what a browser shows as NAME.jpg: pages with noise are megabytes as PNG."""
    folder = Path(PICTURES) if PICTURES else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)

    def keep(browser: webdriver.Chrome, name: str) -> Path:
        shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        shot.save(folder / f"{name}.jpg", quality=80)
        return folder / f"{name}.jpg"

    return keep


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium. Without it tests are skipped, or fail where PNGNOISE_BROWSER says that it has to be there."""
    program, driver = shutil.which(BROWSER), shutil.which("chromedriver")
    if program is None or driver is None:
        message = "chromium or chromedriver is missing; run apt-get install chromium chromium-driver"
        if "PNGNOISE_BROWSER" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    options.add_argument("--window-size=1400,1000")
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def shows(browser: webdriver.Chrome, *words: str, seconds: float = 60) -> None:
    """Wait until the page shows all these words."""

    def there(page: webdriver.Chrome) -> bool:
        text = page.find_element(By.TAG_NAME, "body").text
        return all(word in text for word in words)

    try:
        WebDriverWait(browser, seconds, ignored_exceptions=[Exception]).until(there)
    except Exception:
        text = browser.find_element(By.TAG_NAME, "body").text
        raise AssertionError(f"{browser.current_url} does not show {words}, but:\n{text[:3000]}") from None


@pytest.fixture(scope="session")
def look() -> Callable[..., None]:
    """:func:`shows` as a fixture."""
    return shows


@pytest.fixture(scope="session")
def widths() -> Callable[[webdriver.Chrome], list[int]]:
    """Widths in pixels that the pictures of a page really have: 0 is a broken one."""

    def measure(page: webdriver.Chrome) -> list[int]:
        script = "return [...document.images].filter(i => i.src.startsWith('data:')).map(i => i.naturalWidth)"
        return list(json.loads(json.dumps(page.execute_script(script))))

    return measure
