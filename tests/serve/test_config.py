"""What `raylib serve` refuses before it loads anything."""

import pytest

from raylib.cli import main
from raylib.errors import UserError
from raylib.serve.config import ServeConfig


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_are_let_in_with_a_token_alone(host):
    with pytest.raises(UserError, match="--token-file"):
        ServeConfig(["m"], host=host).check_complete()
    ServeConfig(["m"], host=host, token_file="tokens").check_complete()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_none(host):
    ServeConfig(["m"], host=host).check_complete()


@pytest.mark.parametrize(("given", "range"), [("1", (1, 1)), ("3", (3, 3)), ("1..8", (1, 8))])
def test_replicas_are_a_number_or_a_range(given, range):
    assert ServeConfig(["m"], replicas=given).replica_range() == range


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"replicas": "0"}, "--replicas"),
        ({"replicas": "8..1"}, "--replicas"),
        ({"replicas": "many"}, "--replicas"),
        ({"replicas": "2", "local": True}, "--local"),
        ({"address": "auto", "local": True}, "--local"),
        ({"port": 70000}, "--port"),
        ({"timeout": 0}, "--timeout"),
        ({"max_queue": 10}, "--max-queue is 10"),
        ({"max_batch_tokens": 0}, "--max-batch-tokens"),
    ],
)
def test_numbers_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        ServeConfig(["m"], **settings)


def test_the_command_says_what_is_missing(capsys):
    assert main(["serve", "--local"]) == 2
    assert "add --model" in capsys.readouterr().err
    assert main(["serve", "--local", "--model", "m", "--corpus", "c"]) == 2
    assert "--store" in capsys.readouterr().err
    assert main(["serve", "--local", "--model", "m", "--host", "0.0.0.0"]) == 2
    assert "--token-file" in capsys.readouterr().err
