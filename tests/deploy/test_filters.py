"""The playbooks' filters: what they refuse, in which words, and what they write for the hosts."""

from __future__ import annotations

import json

import pytest

from app.config import FORMER_NAMES, ROOT, Config, settings
from app.keys.keyring import digest, parsed
from app.keys.passes import pass_of, shared_secret
from app.pool.render import render
from tests.support.certificate import certificate
from tests.support.playbooks import load

BALANCER = ROOT / "deploy" / "haproxy.cfg"
filters = load("filter_plugins/transcription.py")
NAMED = {"name": "meetings", "key": "its-key", "requests_per_minute": 600}


def test_an_unknown_setting_is_refused_with_the_nearest_one():
    said = filters.setting_problems(
        {"BEAM_SIZ": 3, "NO_SUCH": 1, "BEAM_SIZE": 3}, "service_settings"
    )

    assert said == [
        "service_settings: BEAM_SIZ is no setting; did you mean BEAM_SIZE?",
        "service_settings: NO_SUCH is no setting.",
    ]


def test_a_setting_that_a_variable_sets_names_the_variable():
    (said,) = filters.setting_problems({"GPUS": "0"}, "service_settings")

    assert said == "service_settings: GPUS follows from service_gpus."
    known = {setting.name.upper() for setting in settings()}
    assert set(filters.FROM_VARIABLES) <= known


@pytest.mark.parametrize(("name", "former"), FORMER_NAMES.items())
def test_a_former_name_is_translated_and_said(name, former):
    assert filters.current_settings({former: 8, "BEAM_SIZE": 3}) == {name: 8, "BEAM_SIZE": 3}
    assert filters.setting_problems({former: 8}, "service_settings") == []
    (said,) = filters.former_names({former: 8}, "service_settings")
    assert f"{former} is now called {name}" in said
    assert filters.setting_problems({former: 8, name: 8}, "service_settings") == [
        f"service_settings: {former} and {name} are the same setting."
    ]


def test_the_balancers_settings_are_those_that_its_file_reads():
    text = BALANCER.read_text()
    own = ["RUN_DIR", "STATS_PASSWORD"]

    assert filters.balancer_setting_problems({"LB_PORT": 1, "CORS_ORIGINS": ""}, text, own) == []
    assert filters.balancer_setting_problems({"LB_PROT": 1, "BEAM_SIZE": 1}, text, own) == [
        "haproxy_settings: LB_PROT is no setting; did you mean LB_PORT?",
        "haproxy_settings: BEAM_SIZE belongs in service_settings.",
    ]
    assert filters.balancer_setting_problems({"STATS_PASSWORD": "x"}, text, own) == [
        "haproxy_settings: STATS_PASSWORD follows from haproxy_stats_password."
    ]


def test_a_misspelled_variable_is_refused_and_others_variables_are_not():
    said = filters.variable_problems(
        [
            "servce_workers",
            "service_workers",
            "haproxy_backend_name",
            "vault_tls_pem",
            "ansible_user",
        ]
    )

    assert said == ["servce_workers is no variable of the roles; did you mean service_workers?"]
    (former,) = filters.variable_problems(["firewall_worker_ports"])
    assert former.startswith("firewall_worker_ports is no variable any more: ")


def test_hosts_to_drain_are_in_the_inventory():
    hosts = ["gpu1", "gpu2"]

    assert filters.host_problems(["gpu2"], hosts, "drain") == []
    assert filters.host_problems(["pgu1"], hosts, "drain") == [
        "drain: pgu1 is no GPU host of the inventory; did you mean gpu1?"
    ]
    assert "-e drain=HOST" in filters.host_problems([], hosts, "drain")[0]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([7], "entry 1 is neither a string nor an object"),
        (["a b"], "the key of entry 1 has spaces"),
        ([{"name": "a"}], "entry 1 has no key"),
        ([{"key": "a"}], "entry 1 has no name"),
        ([{"name": "a", "key": "b", "requests_per_minut": 1}], "has the member requests_per_minut"),
        ([{"name": "API_TOKEN", "key": "b"}], "a name has 1 to 64"),
        ([{"name": "a", "key": "b"}, {"name": "a", "key": "c"}], "a name occurs twice"),
        (["secret", {"name": "a", "key": "secret"}], "a key occurs twice"),
        ([{"name": "a", "key": "b", "concurrent_requests": 0}], "no whole number from 1"),
        ([{"name": "a", "key": "b", "concurrent_requests": "many"}], "no whole number from 1"),
    ],
)
def test_a_malformed_key_is_a_sentence_without_the_key(keys, sentence):
    (said,) = filters.key_problems(keys)

    assert said.startswith("service_api_keys: ")
    assert sentence in said
    assert "secret" not in said


def test_inventorys_keys_become_the_workers_file_and_the_balancers_map():
    keys = ["first", NAMED, "second"]

    assert filters.key_problems(keys) == []
    found = {key.name: key for key in parsed(filters.key_file(keys).encode())}
    assert set(found) == {"key-1", "meetings", "key-3"}
    assert found["meetings"].hashes == (digest("its-key"),)
    assert found["meetings"].requests_per_minute == 600
    key_map = filters.key_map(keys, "shared")
    assert f"{digest('its-key').hex().upper()} meetings 600 0\n" in key_map
    own = pass_of(shared_secret(Config(live_secret="shared")), "meetings")
    assert f"{digest(own).hex().upper()} meetings 600 0\n" in key_map, "for its live sessions"
    assert "its-key" not in filters.key_file(keys) + key_map


def test_a_limit_from_a_template_is_a_number():
    keys = [{**NAMED, "requests_per_minute": "600"}]

    assert json.loads(filters.key_file(keys))["meetings"]["requests_per_minute"] == 600


def test_keys_that_clients_would_lose_are_named():
    installed = filters.key_file(["first", NAMED])

    assert filters.lost_keys(["first", NAMED, "new"], installed) == []
    assert filters.lost_keys([{**NAMED, "name": "renamed"}], installed) == ["key-1"]
    assert filters.lost_keys(["another"], installed) == ["key-1", "meetings"]
    assert filters.lost_keys(["another"], "") == []


def test_a_certificate_that_does_not_fit_its_key_is_refused(tmp_path):
    pem, other = certificate(tmp_path).read_text(), certificate(tmp_path).read_text()
    cut = pem.index("-----BEGIN CERTIFICATE")
    assert filters.certificate_problems("") == []
    assert filters.certificate_problems(pem) == []
    assert "has no private key" in filters.certificate_problems(pem[cut:])[0]
    mixed = pem.replace(pem[cut:], other[other.index("-----BEGIN CERTIFICATE") :])
    assert "key values mismatch" in filters.certificate_problems(mixed)[0]
    broken = pem.replace(pem[cut + 60 : cut + 70], "!" * 10)
    assert "cannot be used" in filters.certificate_problems(broken)[0]


def test_workers_are_numbered_and_have_consecutive_ports():
    assert filters.workers("gpu1", 2, "10.0.0.1", 8001) == [
        {"name": "gpu1-1", "number": 1, "address": "10.0.0.1:8001"},
        {"name": "gpu1-2", "number": 2, "address": "10.0.0.1:8002"},
    ]


def test_installed_workers_are_read_from_the_configuration():
    servers = filters.workers("gpu1", 2, "10.0.0.1", 8001)
    gateways = [{"name": "gpu1", "address": "10.0.0.1:8405"}]
    text = filters.balancer_configuration(BALANCER.read_text(), servers, gateways)

    assert text == render(BALANCER, workers=servers, gateways=gateways)
    assert 'server gpu1 "10.0.0.1:8405" check' in text
    assert filters.without_installed(servers, text) == []
    new = filters.workers("gpu2", 1, "10.0.0.2", 8001)
    assert filters.without_installed(new, text) == ["gpu2-1"]
    assert [one["name"] for one in filters.with_installed(new, text)] == [
        "gpu2-1",
        "gpu1-1",
        "gpu1-2",
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [("WORKERS='3'\n", 3), ("A='1'\nWORKERS=12\n", 12), ("NOWORKERS='3'\n", 0), ("", 0)],
)
def test_the_number_of_workers_is_read_from_the_settings_file(text, count):
    assert filters.worker_count(text) == count


def test_gpu_memory_counts_for_the_gpus_in_use():
    def said(lines, gpus, count):
        return filters.gpu_memory_problems(lines, gpus, count, 4000, "gpu1", "large")

    assert said(["0, 24000", "1, 2000"], ["0"], 2) == []
    assert said(["0, 24000", "1, 2000"], ["0", "1"], 2)[0].startswith(
        "GPU 1 of gpu1 has 2000 MB; 1 "
    )
    assert said(["0, 6000"], ["0"], 2)[0].startswith("GPU 0 of gpu1 has 6000 MB; 2 worker(s)")


def test_a_port_of_another_program_is_taken():
    lines = [
        "LISTEN 0 128 0.0.0.0:22 0.0.0.0:* cgroup:/system.slice/ssh.service",
        "LISTEN 0 128 10.0.0.1:8001 0.0.0.0:* cgroup:/system.slice/transcription.service",
    ]

    assert filters.taken_ports(lines, ["22", "8001", "8002"], "transcription.service") == ["22"]


def test_releases_in_use_and_the_newest_stay():
    found = [{"path": f"/r/{n}", "mtime": n} for n in range(1, 6)]

    assert filters.old_releases(found, 3, ["/r/1", "/r/2"]) == ["/r/4", "/r/3"]
    assert filters.old_releases(found, 1, ["/r/1", "/r/5"]) == ["/r/4", "/r/3", "/r/2"]


def test_reasons_are_evaluated_only_where_they_apply():
    class Once(dict):
        def __getitem__(self, name):
            assert name != "say" or self["if"], "a sentence that does not apply"
            return super().__getitem__(name)

    said = filters.reasons(
        [
            Once({"if": False, "say": "no"}),
            Once({"if": True, "say": "one\n two"}),
            {"say": ["three"]},
        ]
    )

    assert said == ["one two", "three"]


def test_problems_of_all_hosts_are_said_once():
    hosts = {
        "gpu1": {"_service_problems": ["same", "own"]},
        "lb1": {"_haproxy_problems": ["same"], "_service_problems": []},
    }

    assert filters.problems(["gpu1", "lb1"], hosts) == ["same", "own"]


def test_a_table_has_aligned_columns_and_a_row_for_each_host():
    rows = filters.reported(
        ["a", "b"], {"a": {"rows": [("a", "1", "2", "3", "ok")]}, "b": {}}, "rows"
    )

    assert filters.aligned(rows).splitlines() == ["a  1  2  3  ok", "b  -  -  -  was not reached"]
