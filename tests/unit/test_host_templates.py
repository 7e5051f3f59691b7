"""What the host role writes on a host: by its defaults, by other inputs, and judged by apt itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from ansible_collections.slipway.wsgi.plugins.module_utils.firewall import filled
from rendering import ROLES, lines, render

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = {
    "apt.conf.j2": "//",
    "firewall.nft.j2": "#",
    "journald.conf.j2": "#",
    "needrestart.conf.j2": "#",
    "slipway-firewall.service.j2": "#",
    "slipway.list.j2": "#",
    "sysctl.conf.j2": "#",
}
MIRROR = "https://user:p%40ss@mirror.example.org/debian"
OTHER: dict[str, object] = {
    "host_apt_sources": [
        {"uri": MIRROR, "suite": "trixie"},
        {"uri": "http://mirror.example.org/security", "suite": "trixie-security", "components": ["main", "contrib"]},
    ],
    "host_proxy_url": "http://user:p%40ss@proxy.example.org:3128/",
    "host_proxy_exceptions": ["mirror.example.org", "192.0.2.7"],
    "host_firewall_ports": [80, "8000-8010", "53/udp"],
    "host_firewall_sources": [
        {"source": "10.0.0.0/8", "ports": [5432, "6000-6010/udp"]},
        {"source": "2001:db8::/32"},
    ],
    "host_firewall_ssh_sources": ["192.0.2.0/24", "2001:db8::7"],
    "host_updates_reboot": "04:30",
    "host_journal_size": "512m",
    "host_journal_keep_free": 1048576,
    "host_journal_days": 30,
    "host_journal_burst": 0,
    "host_backlog": 8192,
}
NO_UPDATES = {**OTHER, "host_updates": False}
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
APT_CONFIG = shutil.which("apt-config")
needs_apt = pytest.mark.skipif(APT_CONFIG is None, reason="this is no machine with apt")


def dumped(tmp_path: Path, text: str) -> list[str]:
    """Give apt's settings as apt itself reads them from a text.

    Raises CalledProcessError when apt cannot read it.
    """
    path = tmp_path / "apt.conf"
    path.write_text(text, encoding="utf-8")
    command = [str(APT_CONFIG), "-c", str(path), "dump"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()


def test_every_template_is_tested() -> None:
    """A template that is added is added here too."""
    assert {path.name for path in (ROLES / "host" / "templates").iterdir()} == set(TEMPLATES)


@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
@pytest.mark.parametrize(("template", "mark"), TEMPLATES.items())
def test_every_file_says_who_manages_it(template: str, mark: str, inputs: dict[str, object]) -> None:
    """Every file opens with the managed header, in the file's own comments, and holds no template syntax."""
    text = render("host", template, **inputs)
    header = text.splitlines()[:3]
    assert [line.rstrip() for line in header] == [mark, f"{mark} Ansible managed", mark]
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize(
    ("template", "variable"), [("apt.conf.j2", "host_proxy_url"), ("slipway.list.j2", "host_apt_sources")]
)
def test_an_undefined_variable_is_an_error(template: str, variable: str) -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("host", template, **{variable: trust_as_template("{{ no_such_variable }}")})


def test_by_default_the_host_goes_its_own_way() -> None:
    """No proxy and no source of ours: nothing is said to apt about where packages come from."""
    assert lines(render("host", "apt.conf.j2", host_updates=False), comment="//") == []
    assert lines(render("host", "slipway.list.j2")) == []


def test_apt_is_told_the_proxy_and_its_exceptions() -> None:
    """Both protocols go through the proxy, the exceptions do not; the host's own sources are out of the way."""
    assert lines(render("host", "apt.conf.j2", **NO_UPDATES), comment="//") == [
        'Acquire::http::Proxy "http://user:p%40ss@proxy.example.org:3128/";',
        'Acquire::https::Proxy "http://user:p%40ss@proxy.example.org:3128/";',
        'Acquire::http::Proxy::mirror.example.org "DIRECT";',
        'Acquire::https::Proxy::mirror.example.org "DIRECT";',
        'Acquire::http::Proxy::192.0.2.7 "DIRECT";',
        'Acquire::https::Proxy::192.0.2.7 "DIRECT";',
        'Dir::Etc::sourcelist "/etc/apt/slipway.list";',
        'Dir::Etc::sourceparts "-";',
    ]


def test_each_half_of_the_settings_stands_alone() -> None:
    """A proxy leaves the host's sources, sources bring no proxy, and exceptions mean nothing without a proxy."""
    proxy = render("host", "apt.conf.j2", host_proxy_url="http://proxy.example.org:3128")
    assert "Acquire::http::Proxy " in proxy
    assert "Dir::" not in proxy
    assert "DIRECT" not in proxy
    sources = render("host", "apt.conf.j2", **(OTHER | {"host_proxy_url": ""}))
    assert "Dir::Etc::sourcelist" in sources
    assert "Proxy" not in sources


def test_the_names_of_the_lesson_reach_the_role() -> None:
    """What the inventory says for all roles is what this role takes by default."""
    text = render(
        "host", "apt.conf.j2", proxy_url="http://shared.example.org:3128", proxy_exceptions=["direct.example.org"]
    )
    assert 'Acquire::https::Proxy "http://shared.example.org:3128";' in text
    assert 'Acquire::https::Proxy::direct.example.org "DIRECT";' in text


def test_sources_are_lines_of_sources_list() -> None:
    """One line a source: type, place, suite, components; `main` where none is named (sources.list(5))."""
    assert lines(render("host", "slipway.list.j2", **OTHER)) == [
        f"deb {MIRROR} trixie main",
        "deb http://mirror.example.org/security trixie-security main contrib",
    ]


@needs_apt
def test_apt_reads_what_is_meant(tmp_path: Path) -> None:
    """Apt finds the values, those of the addresses too."""
    found = dumped(tmp_path, render("host", "apt.conf.j2", **NO_UPDATES))
    for line in lines(render("host", "apt.conf.j2", **NO_UPDATES), comment="//"):
        assert line in found
    assert 'Dir::Etc::sourceparts "-";' in found


@needs_apt
def test_apt_reads_the_file_of_the_defaults(tmp_path: Path) -> None:
    """The header alone is a file that apt can read, and brings neither sources nor a proxy of ours."""
    found = dumped(tmp_path, render("host", "apt.conf.j2", host_updates=False))
    assert not [line for line in found if "slipway" in line or line == 'Dir::Etc::sourceparts "-";']


@needs_apt
def test_apt_would_say_what_it_cannot_read(tmp_path: Path) -> None:
    """The judge judges: a quote that is left open is refused."""
    with pytest.raises(subprocess.CalledProcessError):
        dumped(tmp_path, render("host", "apt.conf.j2", **OTHER) + 'Acquire::Retries "3;\n')


@needs_apt
def test_apt_can_fetch_by_these_lines(tmp_path: Path) -> None:
    """Apt itself takes the list for well-formed: `apt-get indextargets` names each index of it."""
    path = tmp_path / "slipway.list"
    path.write_text(render("host", "slipway.list.j2", **OTHER), encoding="utf-8")
    settings = [f"Dir::Etc::sourcelist={path}", "Dir::Etc::sourceparts=-", "APT::Architecture=amd64"]
    command = ["apt-get", *(f"-o{setting}" for setting in settings), "indextargets", "--no-release-info"]
    command += ["--format", "$(SITE)|$(RELEASE)|$(COMPONENT)", "Identifier: Packages"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.stderr == ""
    found = {line for line in result.stdout.splitlines() if line}
    assert found == {
        "https://mirror.example.org/debian|trixie|main",
        "http://mirror.example.org/security|trixie-security|main",
        "http://mirror.example.org/security|trixie-security|contrib",
    }


@needs_apt
def test_security_updates_take_the_place_of_what_debian_would_install(tmp_path: Path) -> None:
    """Debian's own file, which is read before, lets point releases in as well."""
    stock = 'Unattended-Upgrade::Origins-Pattern { "origin=Debian,label=Debian"; };\n'
    for inputs, reboot in (({}, 'Automatic-Reboot "false";'), (OTHER, 'Automatic-Reboot-Time "04:30";')):
        found = dumped(tmp_path, stock + render("host", "apt.conf.j2", **inputs))
        origins = [line.split('"')[1] for line in found if line.startswith("Unattended-Upgrade::Origins-Pattern:: ")]
        assert origins == [
            "origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
            "origin=Ubuntu,archive=${distro_codename}-security",
        ]
        assert f"Unattended-Upgrade::{reboot}" in found
        assert 'APT::Periodic::Unattended-Upgrade "1";' in found


def rules(**inputs: object) -> str:
    """Give the rules of the firewall as the module puts them in force, with sshd at port 22."""
    return filled(render("host", "firewall.nft.j2", **inputs), [22])


def allowed(**inputs: object) -> list[str]:
    """Give who is let in to which port."""
    return [line for line in lines(rules(**inputs)) if " dport " in line or " saddr " in line]


def test_the_web_and_ssh_are_open_to_all() -> None:
    """And what a DHCPv6 server answers; HTTP/3 where there is TLS; the ports are those of the inventory."""
    dhcp = "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"
    ssh = "tcp dport $ssh accept"
    assert allowed() == [dhcp, ssh, "tcp dport 80 accept", "tcp dport 443 accept"]
    assert allowed(web_port=8080, web_tls_port=8443, web_certificate="acme") == [
        *(dhcp, ssh, "tcp dport 8080 accept", "tcp dport 8443 accept", "udp dport 8443 accept"),
    ]


def test_further_ports_are_open_to_whom_the_inputs_say() -> None:
    """A source without ports may use all of them; ssh is open to its own sources only."""
    assert allowed(**OTHER)[1:] == [
        "ip saddr 192.0.2.0/24 tcp dport $ssh accept",
        "ip6 saddr 2001:db8::7 tcp dport $ssh accept",
        "tcp dport 80 accept",
        "tcp dport 8000-8010 accept",
        "udp dport 53 accept",
        "ip saddr 10.0.0.0/8 tcp dport 5432 accept",
        "ip saddr 10.0.0.0/8 udp dport 6000-6010 accept",
        "ip6 saddr 2001:db8::/32 accept",
    ]


def test_the_firewall_touches_no_table_but_its_own() -> None:
    """It is made anew in one go, and nothing is flushed: docker and fail2ban have rules of their own."""
    text = lines(rules(**OTHER))
    assert text[1:4] == ["table inet slipway", "delete table inet slipway", "table inet slipway {"]
    assert [line for line in text if "flush" in line or line.startswith("table")] == [text[1], text[3]]


@pytest.mark.skipif(shutil.which("nft", path=PATH) is None or os.geteuid() != 0, reason="nft asks the kernel, as root")
@pytest.mark.parametrize(("inputs", "fault", "code"), [({}, "", 0), (OTHER, "", 0), (OTHER, "tcp dport x;", 1)])
def test_nft_reads_the_rules(tmp_path: Path, inputs: dict[str, object], fault: str, code: int) -> None:
    """Nft itself takes them, in a network of their own, twice in a row; a fault it would see."""
    path = tmp_path / "firewall.nft"
    path.write_text(rules(**inputs).replace("        counter", f"        {fault}counter"), encoding="utf-8")
    command = ["unshare", "--net", "sh", "-c", 'nft --file "$0" && nft --file "$0"', str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env={"PATH": PATH})
    assert result.returncode == code, result.stderr


def test_the_journal_is_given_its_limits() -> None:
    """Sizes in the letters that journald knows; by default an entry has no age."""
    assert lines(render("host", "journald.conf.j2")) == [
        *("[Journal]", "SystemMaxUse=1G", "SystemKeepFree=1G", "RateLimitIntervalSec=30s", "RateLimitBurst=10000"),
    ]
    assert lines(render("host", "journald.conf.j2", **OTHER))[1:5] == [
        *("SystemMaxUse=512M", "SystemKeepFree=1048576", "MaxRetentionSec=30day", "MaxFileSec=1day"),
    ]


@pytest.mark.parametrize(("backlog", "allowed"), [(100, 4096), (4096, 4096), (8192, 8192)])
def test_the_kernel_allows_what_a_socket_asks_for(backlog: int, allowed: int) -> None:
    """And never less than its own default: other programs of the host have sockets too."""
    assert lines(render("host", "sysctl.conf.j2", app_backlog=backlog)) == [f"net.core.somaxconn = {allowed}"]


@pytest.mark.skipif(shutil.which("perl") is None, reason="needrestart is Perl, and so are its settings")
def test_needrestart_leaves_nginx_and_releases_alone(tmp_path: Path) -> None:
    """Perl itself reads the file; other services are needrestart's to restart."""
    path = tmp_path / "slipway.conf"
    path.write_text(render("host", "needrestart.conf.j2"), encoding="utf-8")
    units = ["nginx.service", "hello@0123456789ab.service", "ssh.service", "getty@tty1.service", "nginx.service.d"]
    script = """
        our %nrconf; do shift or die;
        for my $unit (@ARGV) { print "$unit\n" if grep { $unit =~ $_ } keys %{$nrconf{override_rc}} }
    """
    result = subprocess.run(
        ["perl", "-Mstrict", "-e", script, str(path), *units], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout.splitlines() == units[:2]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this is no machine with systemd")
def test_systemd_reads_the_unit_of_the_firewall(tmp_path: Path) -> None:
    """Without a word about it."""
    path = tmp_path / "slipway-firewall.service"
    text = render("host", "slipway-firewall.service.j2")
    path.write_text(text.replace("/usr/sbin/nft", "/bin/true"), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in result.stderr.splitlines() if path.name in line] == []
