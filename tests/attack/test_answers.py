"""Small things that an answer must not do."""

import base64

from attacker import Ledger


def test_l5_a_made_up_cursor_is_refused(ledger: Ledger) -> None:
    text = b'["2026-01-01T00:00:00Z","\\u0000"]'
    for cursor in (base64.urlsafe_b64encode(text).decode().rstrip("="), base64.b64encode(text).decode()):
        for path in ("deliveries", "events", "deployments", "releases", "approvals", "freezes", "incidents", "services"):
            assert ledger.send("GET", f"/v1/{path}?cursor={cursor}").status == 400, path


def test_l6_an_address_is_one(ledger: Ledger) -> None:
    for url in ("https://[", "https://", "https://a b", "https://[::1", "https://exa mple.com", "https://%zz"):
        answer = ledger.send("POST", "/v1/services", {"slug": "shop", "repository_url": url})
        assert answer.status == 422, url


def test_l8_a_name_shows_what_it_is(ledger: Ledger) -> None:
    for character in "\u202e\u2066\u200b\u200d\u2028\u2029\u009b\u00ad\ufeff\u061c\U000e0041\u007f\u0007":
        answer = ledger.send("POST", "/v1/keys", {"name": f"al{character}ice", "scopes": ["read"]})
        assert answer.status == 422, f"U+{ord(character):04X}"
        answer = ledger.send("POST", "/v1/services", {"slug": "shop", "name": f"Sh{character}op"})
        assert answer.status == 422, f"U+{ord(character):04X}"


def test_l10_media_types_have_no_case_and_encodings_are_named(ledger: Ledger) -> None:
    body = b'{"slug": "shop"}'
    assert ledger.send("POST", "/v1/services", body, Content_Type="APPLICATION/JSON").status == 201
    answer = ledger.send("POST", "/v1/services", body, Content_Encoding="gzip")
    assert answer.status == 415, answer
    for at in ("2026-01-01T00:00:00+25:00", "2026-01-01T00:00:00+23:99"):
        answer = ledger.deploy(service="shop", environment="staging", version="1", create_missing=True, observed=True, at=at)
        assert answer.status == 422, at


def test_l13_a_problem_is_not_kept(ledger: Ledger) -> None:
    for path in ("/v1/services/none", "/nothing"):
        assert ledger.send("GET", path).headers["cache-control"] == "no-store", path
    assert ledger.send("GET", "/v1/services", key=None).headers["cache-control"] == "no-store"
    for path in ("/openapi.json", "/metrics"):
        assert ledger.send("GET", path).headers["cache-control"], path


def test_keys_of_other_people_do_nothing(ledger: Ledger) -> None:
    """What held stays: a deploying key neither approves nor mirrors nor administrates."""
    ledger.place("shop", {"production": {"required_approvals": 1}})
    ledger.release("shop", "1")
    ci = ledger.new_key("ci", "read", "deploy")
    assert ledger.approve(ci, "shop", "1", "production").status == 403
    assert ledger.send("POST", "/v1/keys", {"name": "x", "scopes": ["admin"]}, ci).status == 403
    assert ledger.send("POST", "/v1/freezes", {"environment": "production", "reason": "x"}, ci).status == 403
