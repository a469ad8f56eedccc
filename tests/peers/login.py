"""The login of the Python SDK: it names the URL for a browser, and the test replies with the callback URL."""

from urllib.parse import parse_qs, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata

import steps

try:
    from mcp.client.auth import AuthorizationCodeResult
except ImportError:  # mcp 1.x wants a pair
    AuthorizationCodeResult = None

REDIRECT = "http://localhost:7777/callback"


class Memory:
    """Keeps the tokens and the registered client in memory."""

    def __init__(self):
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


def auth(order):
    """Returns the `auth` of the HTTP client; `None` unless the order asks for a login."""
    if not order.get("login"):
        return None
    asked = {}

    async def go(url):
        asked["authorize"] = url

    async def come_back():
        answer = await steps.asked({"authorize": asked["authorize"]})
        found = {name: values[0] for name, values in parse_qs(urlsplit(answer["callback"]).query).items()}
        if AuthorizationCodeResult is None:
            return found["code"], found.get("state")
        return AuthorizationCodeResult(code=found["code"], state=found.get("state"), iss=found.get("iss"))

    metadata = OAuthClientMetadata(client_name="A peer", redirect_uris=[REDIRECT])
    return OAuthClientProvider(order["url"], metadata, Memory(), redirect_handler=go, callback_handler=come_back)
