"""sslyze, by Mozilla's intermediate profile, from the controller."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Site
from testinfra.host import Host

from judges.conftest import NAME, Authority, Verdicts, weak_server


def judge(program: Path, port: int, authority: Authority, report: Path) -> tuple[bool, str, Any]:
    """Return whether a site is compliant, what sslyze says in words, and what it met."""
    done = subprocess.run(
        [program, "--mozilla_config=intermediate", "--certinfo_ca_file", authority.ca, "--json_out", report,
         f"{NAME}:{port}{{127.0.0.1}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (met,) = json.loads(report.read_text())["server_scan_results"]
    assert (met["connectivity_status"], met["scan_status"]) == ("COMPLETED", "COMPLETED")
    return done.returncode == 0, done.stdout, met["scan_result"]


def test_sslyze_calls_it_compliant(
    host: Host, site: Site, authority: Authority, tmp_path: Path, verdicts: Verdicts,
    tool: Callable[[str, str], Path], version: Callable[[str], str],
) -> None:  # fmt: skip
    """The site is, with the certificate that was deployed; a server with an old cipher is not."""
    program, report = tool("sslyze", "sslyze"), tmp_path / "report.json"
    compliant, words, met = judge(program, site.tls_port, authority, report)
    (chain,) = met["certificate_info"]["result"]["certificate_deployments"]
    assert chain["received_certificate_chain"][0]["as_pem"].strip() in authority.pem()

    with weak_server(authority) as port:
        control, faults, _ = judge(program, port, authority, report)
    said = "compliant" if compliant else "not compliant"
    verdicts.add(
        "sslyze, Mozilla intermediate", version("sslyze"), host.backend.get_hostname(), said,
        "compliant" if control else "not compliant",
    )  # fmt: skip
    assert not control
    assert "ciphers" in faults
    assert compliant, words[-2000:]
