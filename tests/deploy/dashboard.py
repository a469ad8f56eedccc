"""Prints the queries of a Grafana dashboard as recording rules, so that promtool parses them, and
checks what promtool cannot: that each panel asks the chosen data source, and no two are one another's
identity.

    dashboard.py DASHBOARD > rules.yaml
"""

import json
import sys


def queries(dashboard):
    """Yields the queries of all panels, with Grafana's variables replaced."""
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels}) == len(panels), "two panels have the same id"
    for panel in panels:
        assert panel["targets"], f"no query: {panel['title']}"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", f"another data source: {panel['title']}"
            query = target["expr"].replace("$__rate_interval", "5m")
            for name in ("instance", "tenant"):
                query = query.replace(f"${name}", ".*")
            assert "$" not in query, f"an unknown variable: {query}"
            yield query


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        dashboard = json.load(file)
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries(dashboard))]
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)


main()
