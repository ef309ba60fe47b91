"""What the OpenAPI document allows, and what it does not: no request of either kind is answered with a 5xx."""

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from raylib.serve.app import create_app
from raylib.serve.limits import Limits
from tests.serve.running import counting

# The schema is that of the application which is asked; one loop serves all requests, as one batcher is of one loop.
app = create_app(counting(), limits=Limits(seconds=20))
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_answered_with_a_server_error(case):
    response = case.call_and_validate(checks=[not_a_server_error])
    if response.status_code >= 400:
        assert set(response.json()) == {"error"}
