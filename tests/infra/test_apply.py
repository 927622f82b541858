"""The stack, applied to the stand-in with the real provider and both locks: what it is then, and how it changes."""

import json


def test_it_is_applied(stack):
    assert stack.outputs["alb_url"].startswith("http://prop-alb-staging")
