"""The OpenAPI description is true: a program that knows nothing else gets an answer by it."""

import json

import httpx
import pytest
from pydantic import SecretStr
from toy_recommender import free_port, make_recommender, serving

from llmrec.app.server.serve import create_app
from llmrec.app.server.settings import load_settings


@pytest.fixture(scope="module")
def url():
    port = free_port()
    yield from serving(create_app(make_recommender(), load_settings(port=port)), port)


def filled(schema, given):
    """Arguments in the described order, defaults where nothing is given."""
    return [given.get(one["title"], one.get("default")) for one in schema["prefixItems"]]


def call(url, found, verb, **given):
    path = f"/gradio_api/call/{verb}"
    body = found["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    data = filled(body["properties"]["data"], given)
    event = httpx.post(url + path, json={"data": data}).raise_for_status().json()["event_id"]
    text = httpx.get(f"{url}{path}/{event}", timeout=30).text
    kind, answer = text.strip().rsplit("event: ", 1)[1].split("\ndata: ", 1)
    return kind, json.loads(answer)


def test_both_endpoints_answer_as_they_are_described(url):
    found = httpx.get(f"{url}/openapi.json").raise_for_status().json()
    assert found["openapi"].startswith("3.1")
    assert {path.split("/")[3] for path in found["paths"]} == {"recommend", "chat"}
    kind, (answer,) = call(url, found, "recommend", items=["Funny Tale 2"], k=3)
    assert kind == "complete" and [item["rank"] for item in answer["items"]] == [1, 2, 3]
    kind, (answer, *_) = call(url, found, "chat", message="only comedy")
    assert kind == "complete" and answer["filters"] == ["Comedy"]
    assert call(url, found, "recommend", k=5000)[0] == "error"


def test_the_description_names_arguments_types_and_defaults(url):
    found = httpx.get(f"{url}/openapi.json").json()
    post = found["paths"]["/gradio_api/call/recommend"]["post"]
    data = post["requestBody"]["content"]["application/json"]["schema"]["properties"]["data"]
    assert [one["title"] for one in data["prefixItems"]] == ["items", "user", "message", "k", "filters"]
    assert data["prefixItems"][3]["default"] == 10 and data["minItems"] == 0 and post["summary"]
    chat = found["paths"]["/gradio_api/call/chat"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert chat["properties"]["data"]["minItems"] == 1


def test_nothing_is_described_to_those_who_have_not_logged_in():
    port = free_port()
    settings = load_settings(port=port).model_copy(update={"password": SecretStr("correct horse battery")})
    for url in serving(create_app(make_recommender(), settings), port):
        assert httpx.get(f"{url}/openapi.json").status_code == 404
