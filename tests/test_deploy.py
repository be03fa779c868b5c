"""The deployment pack: every file is held to the settings and metrics, and what can run here runs."""

import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import yaml

from chat_sse.api.routes import routes
from chat_sse.server.serve import EXIT_SECONDS
from chat_sse.settings import Settings, load_settings, variable
from tests.conftest import QUICK
from tests.support.metrics import Metrics
from tests.support.nginx import run_nginx
from tests.support.ports import free_port
from tests.support.prometheus import run_prometheus
from tests.support.readme import README
from tests.support.redis_server import RedisServer
from tests.support.reverse_proxies import shown
from tests.support.service import ask, serve
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

ROOT = Path(__file__).parent.parent
PACK = ROOT / ".deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SHOWN = shown("nginx")
VARIABLES = {variable(field) for field in Settings.__struct_fields__}
SECRETS = {
    "OPENAI_API_KEY": "sk-0123456789",
    "CHAT_SSE_SECRET_KEY": "0123456789abcdef",
    "CHAT_SSE_REDIS_URL": "redis://redis:6379/0",
}


def kubernetes() -> dict[str, Any]:
    documents = yaml.safe_load_all((PACK / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PACK / "compose.yaml").read_text())
    return loaded


def alert_rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((PACK / "alerts.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    panels = msgspec.json.decode((PACK / "grafana/dashboard.json").read_bytes())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def settings_of(environ: dict[str, str]) -> Settings:
    """Load what a file of the pack sets, as the service would."""
    assert set(environ) <= VARIABLES
    filled = {
        name: re.sub(r"\$\{PUBLIC_HOST:\?\}", "chat.example.org", text) for name, text in environ.items()
    }
    return load_settings({**filled, **SECRETS}, env_file=None)


def seconds_of(text: str) -> float:
    return float(text.removesuffix("s"))


def test_compose_sets_what_the_service_knows_and_stops_no_answer() -> None:
    file = compose()
    for name in ("chat-a", "chat-b"):
        service = file["services"][name]
        settings = settings_of(service["environment"])
        assert settings.metrics_port == 9464
        needed = settings.shutdown_delay + settings.shutdown_grace + EXIT_SECONDS
        assert seconds_of(service["stop_grace_period"]) >= needed
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["tmpfs"]  # where Python and the workers' metrics keep files
        assert f'EXTRAS="local {service["build"]["args"]["EXTRAS"]}"' in DOCKERFILE
        [subnet] = file["networks"]["default"]["ipam"]["config"]
        assert settings.trusted_proxies == (subnet["subnet"],)
    mounted = [
        volume.split(":")[0]
        for service in file["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    assert {name for name in mounted if not (PACK / name).exists()} == {"./certs"}


def test_kubernetes_sets_what_the_service_knows_and_stops_no_answer() -> None:
    parts = kubernetes()
    settings = settings_of(parts["ConfigMap"]["data"])
    pod = parts["Deployment"]["spec"]["template"]["spec"]
    needed = settings.shutdown_delay + settings.shutdown_grace + EXIT_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= needed
    [container] = pod["containers"]
    readiness = container["readinessProbe"]
    assert settings.shutdown_delay >= readiness["periodSeconds"] * readiness["failureThreshold"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "metrics": settings.metrics_port}
    paths = {route.path for route in routes()}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
    assert (
        f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}\n" in DOCKERFILE
    )
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_kubernetes_names_agree() -> None:
    parts = kubernetes()
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert parts["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert parts["Service"]["spec"]["selector"].items() <= labels.items()
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    scaler = parts["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == parts["Deployment"]["metadata"]["name"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] in known_metrics()
    settings, ingress = settings_of(parts["ConfigMap"]["data"]), parts["Ingress"]
    assert ingress["spec"]["rules"][0]["host"] in settings.allowed_hosts
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert float(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > settings.total_timeout
    assert f"{annotations['nginx.ingress.kubernetes.io/proxy-next-upstream']};" in SHOWN


def known_metrics() -> set[str]:
    """Names of samples: those of the README's table, as Prometheus keeps them."""
    rows = re.findall(r"^\| (`(?:gen_ai|chat_sse)_[^|]*) \|", README, re.MULTILINE)
    families = {name for row in rows for name in re.findall("`(.*?)`", row)}
    return {name + suffix for name in families for suffix in ("", "_total", "_bucket", "_sum", "_count")}


def test_alerts_and_dashboard_name_metrics_that_there_are() -> None:
    expressions = [rule["expr"] for rule in alert_rules()] + dashboard_expressions()
    used = {name for text in expressions for name in re.findall(r"\b(?:gen_ai_client|chat_sse)_\w+", text)}
    assert used <= known_metrics()
    assert len(used) > 15


def test_the_proxy_of_the_pack_is_set_as_the_readme_says() -> None:
    lines = {line.split("#")[0].strip() for line in (PACK / "nginx.conf").read_text().splitlines()}
    shown = {line.split("#")[0].strip() for line in SHOWN.splitlines() if "proxy_" in line}
    assert shown <= lines


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PACK, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_the_service_and_evaluates_every_rule_and_panel(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    (tmp_path / "alerts.yml").write_bytes((PACK / "alerts.yml").read_bytes())
    config = (PACK / "prometheus.yml").read_text().replace("15s", "1s")
    upstream.answer(Say("a"), Say("b"), Say("c"), Finish())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_METRICS_PORT": "0"}
    with RedisServer() as redis, serve({**env, "CHAT_SSE_REDIS_URL": redis.url}) as service:
        ask(service.url)
        target = Metrics(service).url.removeprefix("http://").removesuffix("/metrics")
        config = re.sub(r"targets: .*", f'targets: ["{target}"]', config)
        with run_prometheus(tmp_path, config) as prometheus:

            def value(expression: str) -> float:
                found = prometheus.get("query", query=expression)["result"]
                return float(found[0]["value"][1]) if found else -1

            prometheus.wait_for(lambda: value("chat_sse_answers_total") == 1)
            [scraped] = prometheus.get("targets")["activeTargets"]
            assert (scraped["health"], scraped["lastError"]) == ("up", "")
            ask(service.url)
            prometheus.wait_for(lambda: value("chat_sse_answers_total") == 2)
            for expression in dashboard_expressions():
                prometheus.get("query", query=expression.replace("$__rate_interval", "1m"))
            assert value("sum(rate(gen_ai_client_inference_usage_output_tokens_total[1m]))") > 0
            redis.kill()

            def states() -> dict[str, str]:
                [group] = prometheus.get("rules")["groups"]
                assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
                return {rule["name"]: rule["state"] for rule in group["rules"]}

            prometheus.wait_for(lambda: states()["ChatSseRedisDown"] == "pending")
            assert {name for name, state in states().items() if state != "inactive"} == {"ChatSseRedisDown"}


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Make a folder with a certificate for localhost, and that of who issued it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "privkey.pem")
    for part in issued.cert_chain_pems:
        part.write_to_path(tmp_path / "fullchain.pem", append=True)
    return tmp_path


def test_over_http_2_and_tls_each_delta_passes_nginx_at_once(
    certificates: Path, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first"), Hold(gate), Say("last"), Finish())
    plain, secure = free_port(), free_port()
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_IDLE_TIMEOUT": "30"}) as service:
        config = (PACK / "nginx.conf").read_text().replace("/etc/nginx/certs", str(certificates))
        config = re.sub(r"chat-[ab]:8000", service.url.removeprefix("http://"), config)
        config = config.replace("listen 80;", f"listen 127.0.0.1:{plain};")
        config = config.replace("listen 443 ", f"listen 127.0.0.1:{secure} ")
        with run_nginx(certificates / "nginx", config, secure):
            asked = f"https://localhost:{secure}/ask?q=Hello"
            command = ["curl", "-siN", "--http2", "--cacert", str(certificates / "ca.pem"), asked]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
                assert curl.stdout is not None
                seen = b""
                while b"first" not in seen:
                    read = os.read(curl.stdout.fileno(), 4096)
                    assert read, seen
                    seen += read
                assert seen.startswith(b"HTTP/2 200")
                gate.set()
                assert b'"finish_reason":"stop"' in curl.stdout.read()
