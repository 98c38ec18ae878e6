#!/usr/bin/env python3
"""Writes Grafana's dashboards from the tables below: helm/tern/dashboards/*.json.

  helm/dashboards.py            writes them
  helm/dashboards.py --check    fails if they are out of date

A panel is (title, unit, description, {legend: query}). The labels `namespace`, `pod` and `component` come from the
scrape (helm/tern/templates/podmonitor.yaml). Every query selects the namespace that is chosen at the dashboard's top.
"""

import json
import pathlib
import sys

OUT = pathlib.Path(__file__).parent / "tern" / "dashboards"
HERE = 'namespace=~"$namespace"'
WIDTH, HEIGHT, COLUMNS = 8, 8, 3


def rate(metric: str, labels: str = "", by: str = "") -> str:
    """Returns the query for the increase of a counter a second."""
    selector = ",".join(filter(None, [HERE, labels]))
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))" if by else (
        f"sum(rate({metric}{{{selector}}}[$__rate_interval]))"
    )


def total(metric: str, by: str = "", labels: str = "", how: str = "sum") -> str:
    """Returns the query for a gauge over all pods, or by some labels."""
    selector = ",".join(filter(None, [HERE, labels]))
    return f"{how} by ({by}) ({metric}{{{selector}}})" if by else f"{how}({metric}{{{selector}}})"


def quantile(share: float, metric: str, labels: str = "", by: str = "") -> str:
    selector = ",".join(filter(None, [HERE, labels]))
    groups = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"


def quantiles(metric: str, labels: str = "") -> dict:
    return {f"p{round(share * 100)}": quantile(share, metric, labels) for share in (0.5, 0.95, 0.99)}


COMMIT = 'kind="commit"'
SHARD_BUSY = (
    f'sum by (pod, shard) (rate(tern_chat_job_seconds_sum{{{HERE},kind=~"commit|change"}}[$__rate_interval]))'
)

DASHBOARDS = {
    "overview": ("Tern: overview", [
        ("Messages committed", "cps", "Entries that chat nodes made durable",
         {"entries": rate("tern_chat_job_items_total", 'kind=~"commit|change"')}),
        ("Live deliveries", "cps", "Events sent to sessions that were online, and those given up",
         {"sent": rate("tern_chat_pushes_total"), "given up": rate("tern_chat_pushes_dropped_total")}),
        ("Streams", "short", "Registered sessions, of what the gateways take",
         {"sessions": total("tern_gateway_sessions"), "at most": total("tern_gateway_max_sessions")}),
        ("The canary: time to the receipt", "s", "From a synthetic user's send to the receipt, through the front door",
         quantiles("tern_canary_message_seconds", 'step="receipt"')),
        ("The canary: failures", "cps", "By the step that did not come",
         {"{{step}}": rate("tern_canary_failures_total", by="step")}),
        ("Commit", "s", "Time of a commit in Postgres", quantiles("tern_chat_job_seconds", 'kind="commit"')),
        ("Calls that fail", "cps", "Unary calls by status code, OK left out",
         {"{{code}}": rate("tern_gateway_unary_total", 'code!="Ok"', "code")}),
        ("Shedding", "short", "What is given up under load: 1 typing, 2 presence, 3 receipts, 4 new streams",
         {"{{pod}}": total("tern_node_shed_level", "pod", 'of="effect"', "max")}),
        ("Defects", "short", "Inbox rows that only the sweep found, in an hour: each is a defect",
         {"found": f"sum(increase(tern_gateway_sweep_found_total{{{HERE}}}[1h]))"}),
    ]),
    "gateway": ("Tern: gateways", [
        ("Sessions", "short", "By pod", {"{{pod}}": total("tern_gateway_sessions", "pod")}),
        ("Streams opened", "cps", "By outcome", {"{{outcome}}": rate("tern_gateway_opens_total", by="outcome")}),
        ("Streams ended", "cps", "By reason", {"{{reason}}": rate("tern_gateway_stream_ends_total", by="reason")}),
        ("Items in", "cps", "What devices send, by kind", {"{{kind}}": rate("tern_gateway_items_in_total", by="kind")}),
        ("Events a frame", "short", "How much a frame carries: more under load is well",
         {"events": f"{rate('tern_gateway_events_out_total')} / {rate('tern_gateway_frames_out_total')}"}),
        ("Frames and events out", "cps", "To devices",
         {"frames": rate("tern_gateway_frames_out_total"), "events": rate("tern_gateway_events_out_total")}),
        ("Unary calls", "cps", "By method", {"{{method}}": rate("tern_gateway_unary_total", by="method")}),
        ("Time of unary calls, p99", "s", "By method; exemplars lead to traces",
         {"{{method}}": quantile(0.99, "tern_gateway_unary_seconds", by="method")}),
        ("Slow devices", "cps", "Live pushes dropped, wakes put off, streams cut off",
         {"pushes dropped": rate("tern_gateway_live_dropped_total"),
          "wakes put off": rate("tern_gateway_wakes_deferred_total"),
          "streams cut": rate("tern_gateway_streams_cut_total")}),
        ("Inboxes", "cps", "Queries for inboxes by outcome",
         {"{{outcome}}": rate("tern_gateway_inbox_reads_total", by="outcome")}),
        ("No way to a node", "cps", "Items refused, and given back as another node's",
         {"refused: {{kind}}": rate("tern_gateway_link_refused_total", by="kind"),
          "given back: {{kind}}": rate("tern_gateway_rerouted_total", by="kind")}),
        ("Links", "short", "Links that are up, by pod and the other's role",
         {"{{pod}} to {{role}}": total("tern_gateway_link_up", "pod, role")}),
        ("Pages", "cps", "Requests of web pages from origins that are not allowed",
         {"refused": rate("tern_gateway_origins_refused_total")}),
    ]),
    "chat": ("Tern: chat nodes and Postgres", [
        ("Shards busy", "percentunit", "Share of its time that a shard's committing connection works: what limits a chat node",
         {"{{pod}} {{shard}}": SHARD_BUSY}),
        ("Jobs", "cps", "Statements of shards by kind",
         {"{{kind}}": rate("tern_chat_job_seconds_count", by="kind")}),
        ("Time of a job, p99", "s", "By kind", {"{{kind}}": quantile(0.99, "tern_chat_job_seconds", by="kind")}),
        ("Sends", "s", "From a message's arrival at its chat node to its commit; exemplars lead to traces",
         quantiles("tern_chat_send_seconds")),
        ("Sends refused", "cps", "By the code that devices are told",
         {"{{code}}": rate("tern_chat_sends_refused_total", by="code")}),
        ("Inbox rows", "short", "Chats with something that a device lacks, one each: mostly of devices that are away",
         {"rows": total("tern_chat_inbox_rows", how="max")}),
        ("Oldest inbox row", "s", "Of the device that is away longest",
         {"age": total("tern_chat_inbox_oldest_seconds", how="max")}),
        ("WAL", "Bps", "What Postgres writes", {"bytes": f"max(rate(tern_chat_postgres_wal_bytes{{{HERE}}}[$__rate_interval]))"}),
        ("Entries a commit", "short", "How much a commit carries: more under load is well",
         {"entries": f"{rate('tern_chat_job_items_total', COMMIT)} / {rate('tern_chat_job_seconds_count', COMMIT)}"}),
        ("Chats in memory", "short", "By pod", {"{{pod}}": total("tern_chat_loaded_chats", "pod")}),
        ("Commands that wait for a chat", "short", "By pod", {"{{pod}}": total("tern_chat_waiting_commands", "pod")}),
        ("Postgres fails", "cps", "Statements that failed: away, or refused",
         {"{{what}}": rate("tern_chat_store_failures_total", by="what")}),
        ("Loads refused", "cps", "Chats whose turn to be loaded did not come",
         {"refused": rate("tern_chat_loads_refused_total")}),
        ("Wait", "s", "Median time that work waited, by what for: what shedding goes by",
         {"{{pod}} {{signal}}": total("tern_node_shed_delay_seconds", "pod, signal", how="max")}),
        ("Settling", "cps", "Look-ups that failed, wakes unconfirmed, chats taken over from owners that are gone",
         {"look-ups failed": rate("tern_chat_lookups_failed_total"),
          "wakes unconfirmed": rate("tern_chat_wakes_unconfirmed_total"),
          "chats recovered": rate("tern_chat_recovered_chats_total")}),
        ("Catching up", "cps", "Entries read from logs for devices", {"entries": rate("tern_chat_window_entries_total")}),
        ("Settings of Postgres", "short", "1 where it keeps what it confirms",
         {"{{setting}}={{value}}": total("tern_node_postgres_setting_safe", "setting, value", how="min")}),
    ]),
    "push": ("Tern: push notifications", [
        ("Sent", "cps", "Pushes that a provider took, by provider and class",
         {"{{provider}} {{class}}": rate("tern_push_sent_total", by="provider, class")}),
        ("Age", "s", "From the time at which a push was to go out to the provider's answer; quiet hours do not count", quantiles("tern_push_age_seconds")),
        ("Oldest that is due", "s", "How late the first push is that nobody has taken yet",
         {"age": total("tern_push_oldest_due_seconds", how="max")}),
        ("Claimed", "cps", "Inbox rows that workers took, and those taken again because a worker ended in between",
         {"claimed": rate("tern_push_claimed_total"), "again": rate("tern_push_claims_repeated_total")}),
        ("Ended unsent", "cps", "Pushes that were not needed any more, by why",
         {"{{why}}": rate("tern_push_ended_total", by="why")}),
        ("Not taken", "cps", "Pushes that a provider did not take, by reason",
         {"{{provider}} {{reason}}": rate("tern_push_failed_total", by="provider, reason")}),
        ("Breakers", "short", "How many are open: an app's, or of Web Push that of a host which a device has named",
         {"{{pod}} {{provider}}": total("tern_push_breaker_open", "pod, provider", how="max")}),
        ("Tokens ended", "cps", "Because the provider says so, or no device names them", {"{{provider}}": rate("tern_push_tokens_ended_total", by="provider")}),
    ]),
    "cluster": ("Tern: the cluster", [
        ("Nodes in the map", "short", "By role", {"{{role}}": total("tern_node_map_nodes", "role", how="min")}),
        ("Map version", "short", "One line when all nodes have the same map",
         {"{{pod}}": total("tern_node_map_version", "pod", how="max")}),
        ("etcd", "short", "1 while it answers", {"{{pod}}": total("tern_node_etcd_up", "pod", how="min")}),
        ("Slots", "short", "By chat node, of 4,096", {"{{pod}}": total("tern_chat_slots", "pod")}),
        ("Links that ended", "cps", "By the other's role, with attempts that failed", {"{{role}}": rate("tern_node_link_breaks_total", by="role")}),
        ("Leases lost, maps read anew", "cps", "Both are rare when etcd is well",
         {"leases": rate("tern_node_leases_lost_total"), "maps": rate("tern_node_map_lists_total")}),
        ("Draining", "short", "Pods that hand over", {"{{pod}}": total("tern_node_draining", "pod", how="max")}),
        ("Versions", "short", "Pods by version of the program",
         {"{{version}}": total("tern_node_build_info", "version", how="count")}),
        ("Held in the map", "short", "Nodes that are gone from etcd and kept for a lease: too many went at once",
         {"{{pod}}": total("tern_node_map_removals_held", "pod", how="max")}),
        ("Certificates", "s", "Until the one in use ends, by which",
         {"{{of}}": total("tern_node_certificate_expires_timestamp_seconds", "of", how="min") + " - time()"}),
        ("Handshakes that failed", "cps", "Between nodes, by direction",
         {"{{direction}}": rate("tern_node_internal_handshakes_failed_total", by="direction")}),
        ("Presence: sessions", "short", "By pod", {"{{pod}}": total("tern_presence_sessions", "pod")}),
        ("Presence: look-ups", "cps", "Answered, and users asked for",
         {"look-ups": rate("tern_presence_lookups_total"), "users": rate("tern_presence_looked_up_users_total")}),
        ("Presence: not the owner", "cps", "Asked for what is another node's: after a change only",
         {"{{call}}": rate("tern_presence_not_owner_total", by="call")}),
        ("Accounts: tokens", "cps", "Refreshes by outcome", {"{{outcome}}": rate("tern_accounts_refreshes_total", by="outcome")}),
        ("Accounts: API keys", "cps", "Presented, by outcome",
         {"{{outcome}}": rate("tern_accounts_key_checks_total", by="outcome")}),
        ("Accounts: devices", "cps", "Linked, and calls to other nodes that failed",
         {"linked": rate("tern_accounts_devices_linked_total"), "failed: {{call}}": rate("tern_accounts_peer_failures_total", by="call")}),
        ("Media: uploads", "cps", "Asked for and finalised, by outcome",
         {"asked for: {{outcome}}": rate("tern_media_uploads_total", by="outcome"),
          "finalised: {{outcome}}": rate("tern_media_finalized_total", by="outcome")}),
        ("Media: downloads", "cps", "URLs given, tickets to forward, quotas exceeded",
         {"downloads": rate("tern_media_downloads_total"), "forwards": rate("tern_media_forwards_total"),
          "over quota: {{quota}}": rate("tern_media_quota_exceeded_total", by="quota")}),
        ("Media: the object store", "cps", "Calls of media nodes that failed",
         {"{{call}}": rate("tern_media_s3_failures_total", by="call")}),
        ("Media: the collector", "cps", "What it ended, and what it could not",
         {"{{kind}}": rate("tern_media_collected_total", by="kind"), "failed": rate("tern_media_collect_failures_total")}),
    ]),
}

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number: int, title: str, unit: str, text: str, queries: dict) -> dict:
    place = {"x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT}
    targets = [
        {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for index, (legend, query) in enumerate(queries.items())
    ]
    return {
        "id": number + 1, "type": "timeseries", "title": title, "description": text, "datasource": SOURCE,
        "gridPos": place, "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def dashboard(name: str, title: str, panels: list) -> dict:
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
        {"name": "namespace", "type": "query", "label": "Namespace", "datasource": SOURCE, "refresh": 2,
         "query": "label_values(tern_node_build_info, namespace)", "includeAll": True, "allValue": ".*"},
    ]
    return {
        "uid": f"tern-{name}", "title": title, "tags": ["tern"], "schemaVersion": 39, "version": 1, "editable": True,
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "browser", "graphTooltip": 1,
        "links": [{"type": "dashboards", "tags": ["tern"], "title": "Tern", "asDropdown": False, "keepTime": True}],
        "templating": {"list": variables},
        "panels": [panel(number, *each) for number, each in enumerate(panels)],
    }


def main() -> int:
    stale = []
    OUT.mkdir(exist_ok=True)
    for name, (title, panels) in DASHBOARDS.items():
        text = json.dumps(dashboard(name, title, panels), indent=1) + "\n"
        file = OUT / f"{name}.json"
        if "--check" in sys.argv:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                stale.append(file.name)
        else:
            file.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"dashboards: {name} is not as helm/dashboards.py writes it: run it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
