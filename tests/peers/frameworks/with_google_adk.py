"""google-adk."""

import json
from contextlib import asynccontextmanager

from google.adk.agents import Agent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.sessions import InMemorySessionService
from google.adk.tools.mcp_tool.mcp_session_manager import StreamableHTTPConnectionParams
from google.adk.tools.mcp_tool.mcp_toolset import McpToolset
from google.adk.tools.tool_context import ToolContext

import steps
from toolbox import Toolbox, first_text


@asynccontextmanager
async def connected(order):
    server = StreamableHTTPConnectionParams(url=order["url"], headers=steps.headers())
    toolset = McpToolset(connection_params=server)
    context = await tool_context()

    async def run(tool, arguments):
        answer = await tool.run_async(args=arguments, tool_context=context)
        return first_text(answer["content"]) if "content" in answer else json.dumps(answer)

    yield None, Toolbox(await toolset.get_tools(), run)
    await toolset.close()


async def tool_context():
    sessions = InMemorySessionService()
    session = await sessions.create_session(app_name="app", user_id="user")
    agent = Agent(name="agent")
    return ToolContext(
        InvocationContext(session_service=sessions, session=session, agent=agent, invocation_id="1"),
        function_call_id="1",
    )


steps.main(connected)
