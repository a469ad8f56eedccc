"""mcp-use, which sends null for each optional argument."""

from contextlib import asynccontextmanager

import steps  # First, since the framework remembers where it logs to.

from mcp_use import MCPClient
from mcp_use.agents.adapters import LangChainAdapter

from toolbox import Toolbox


@asynccontextmanager
async def connected(order):
    server = {"url": order["url"], "headers": steps.headers() or {}}
    client = MCPClient.from_dict({"mcpServers": {"tenant": server}})
    yield None, Toolbox(await LangChainAdapter().create_tools(client), run)
    await client.close_all_sessions()


async def run(tool, arguments):
    answer = await tool.ainvoke(arguments)
    return answer if isinstance(answer, str) else str(answer)


steps.main(connected)
