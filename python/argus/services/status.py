"""What a person sees while the collector runs: a compact status line and each anomaly as it comes. Names are untrusted."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from argus.engine.detection import STRANGE_ENTITY_BITS
from argus.schema import Anomaly, Severity, Stop
from argus.services.shadow import ShadowReport, Spared

if TYPE_CHECKING:
    from argus.record.verify import VerifyReport
    from argus.services.replay import ReplayReport

NOT_OBSERVED = "host not observed"
_CPU_MODES = ("user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal")
_STALL = "system.pressure.stall_time{{system.pressure.kind=some,system.pressure.resource={}}}"
_MARK = {Severity.INFO: "info", Severity.WARNING: "WARNING", Severity.CRITICAL: "CRITICAL"}


def printable(text: str, limit: int = 120) -> str:
    """Untrusted text on one line: control characters, bidirectional overrides and escapes become `?`."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def quantity(value: float, unit: str) -> str:
    """A value with its unit, scaled for reading: 1.5 GiB, 230 kB/s, 12.3 %."""
    if unit.startswith("By"):
        rest = unit[2:]
        for name in ("B", "KiB", "MiB", "GiB", "TiB"):
            if abs(value) < 1024 or name == "TiB":
                return f"{value:.4g} {name}{rest}"
            value /= 1024
    return f"{value:.4g} {unit}" if unit not in ("1", "") else f"{value:.4g}"


def anomaly_line(anomaly: Anomaly) -> str:
    """One anomaly on one line: time, severity, criterion, scope, message."""
    clock = datetime.fromtimestamp(anomaly.ts / 1e9, UTC).astimezone().strftime("%H:%M:%S")
    rule = f" {anomaly.criterion}" if anomaly.criterion else ""
    scope = "" if anomaly.scope.kind == "host" else f" [{printable(str(anomaly.scope), 60)}]"
    return f"{clock} {_MARK[anomaly.severity]}{rule}{scope} {printable(anomaly.message, 300)}"


def busiest(table: Mapping[str, NDArray[Any]], count: int = 3) -> list[str]:
    """The processes that used most CPU in the last interval: `name(pid) 12 %`."""
    if "cpu_utilization" not in table or not len(table["pid"]):
        return []
    share = np.nan_to_num(table["cpu_utilization"])
    order = np.argsort(-share, kind="stable")[:count]
    return [f"{_name(table['name'][i])}({table['pid'][i]}) {share[i]:.0%}" for i in order if share[i] >= 0.005]


def _name(raw: bytes) -> str:
    """A process name: 64 zero-padded untrusted bytes."""
    return printable(bytes(raw).rstrip(b"\0").decode("utf-8", "replace"), 16)


def host_line(names: tuple[str, ...], values: NDArray[np.float64]) -> str:
    """CPU, memory, load and stalls in a few words, from the newest row; what is not observed is left out."""
    at = {name: value for name, value in zip(names, values.tolist(), strict=True) if value == value}
    parts = []
    modes = {mode: at.get(f"system.cpu.time{{cpu.mode={mode}}}", 0.0) for mode in _CPU_MODES}
    if (total := sum(modes.values())) > 0:
        parts.append(f"cpu {1 - (modes['idle'] + modes['iowait']) / total:.0%}")
    if (used := at.get("system.memory.utilization")) is not None:
        parts.append(f"mem {used:.0%}")
    if (load := at.get("system.cpu.load_average.1m")) is not None:
        parts.append(f"load {load:.2f}")
    stalls = {name: at.get(_STALL.format(name), 0.0) for name in ("cpu", "memory", "io")}
    if told := " ".join(f"{name} {share:.0%}" for name, share in stalls.items() if share >= 0.005):
        parts.append("stalled " + told)
    return " ".join(parts) or NOT_OBSERVED


def entity_words(entity: Mapping[str, Any]) -> str:
    """The machine as one, in words: how strange, and by which series."""
    bits = entity["bits"]
    if not bits:
        return "as one machine: not known yet"
    strange = "strange" if bits >= STRANGE_ENTITY_BITS else "as expected"
    told = ", ".join(
        f"{printable(name, 60)} {share:.0%}"
        for name, share in zip(entity["drivers"][:3], entity["shares"], strict=False)
    )
    return (
        f"as one machine: {bits:.1f} bits, {strange} (strange from {STRANGE_ENTITY_BITS:g}); most from {told or 'none'}"
    )


def claim_lines(claims: Mapping[str, Any]) -> list[str]:
    """What became of claimed files, and the coverage of each agent that lives here."""
    blind = ", ".join(f"{why} {count}" for why, count in claims["unverifiable"].items() if count)
    lines = [
        f"claims  {claims['files']} files: {claims['confirmed']} confirmed, {claims['refuted']} refuted, "
        f"{claims['undecided']} undecided, {claims['withdrawn']} withdrawn, {claims['shed']} shed, "
        f"{sum(claims['unverifiable'].values())} unverifiable" + (f" ({blind})" if blind else "")
    ]
    for agent in [a for a in claims["agents"] if a["alive"]][:20]:
        shares = ", ".join(
            f"{share['accounted'] / share['all']:.0%} of {quantity(share['all'], unit)} {words}"
            for share, unit, words in (
                (agent["cpu_s"], "s", "processor time"),
                (agent["write_bytes"], "By", "written"),
                (agent["processes"], "", "processes started"),
            )
            if share["all"] > 0
        )
        named = printable(agent["session"], 40) + (f" ({printable(agent['agent'], 40)})" if agent["agent"] else "")
        lines.append(f"        {named}: events account for {shares or 'nothing yet'}")
    return lines


def render_status(reply: Mapping[str, Any]) -> str:
    """The collector's own account as plain text."""
    lines = [
        f"argus-collect pid {reply['pid']} on {printable(reply['host'], 64)}, up {reply['uptime_s']:.0f} s, "
        f"mode {reply['mode']}, state in {printable(reply['home'], 240)}",
        f"host    {reply['host_line']}; {reply['series']} series, {reply['processes']} processes",
    ]
    lines.append(f"        {entity_words(reply['entity'])}")
    if reply["maintenance"]:
        lines.append(f"        {printable(reply['maintenance'], 300)}")
    for source in reply["sources_read"]:
        trouble = f"  {printable(source['error'])}" if source["error"] else ""
        lines.append(
            f"        {source['name']:10} {source['state']:12} {source['polls']} polls, {source['emitted']} values, "
            f"{source['errors']} errors, {source['missed']} missed ticks{trouble}"
        )
    for lane in reply["lanes"]:
        p50, p99 = lane["lateness_p50_ns"] / 1e3, lane["lateness_p99_ns"] / 1e3
        lines.append(
            f"        {lane['name']:12} woke {lane['wakes']} times, late {p50:.0f} us (p50), {p99:.0f} us (p99), "
            f"{lane['bursts']} bursts"
        )
    lines.append(
        f"events  {reply['accepted']} accepted, {reply['rejected_total']} rejected from {len(reply['event_sources'])} "
        f"sources; {reply['events']['live_tasks']} tasks live; {reply['shed']} records shed"
    )
    for source in reply["event_sources"][:10]:
        rejected = ", ".join(f"{reason} {count}" for reason, count in source["rejected"].items() if count)
        lines.append(
            f"        {printable(source['name'], 40):40} {source['events']} events, {source['lost']} lost"
            + (f", rejected: {rejected}" if rejected else "")
        )
    lines += claim_lines(reply["claims"])
    lines.append("flags   " + (", ".join(printable(f) for f in reply["flags"]) or "none"))
    lines.append(f"open incidents: {reply['incidents']}; registered sessions: {len(reply['sessions'])}")
    return "\n".join(lines)


def render_incidents(rows: Sequence[Mapping[str, Any]]) -> str:
    """Incidents with their ranked causes as plain text."""
    if not rows:
        return "no open incidents"
    lines = []
    for row in rows:
        lines.append(
            f"{row['severity'].upper():8} {row['key']}  {printable(row['scope']['kind'] + ':' + row['scope']['id'], 60)}"
            f"  {row['cause']}  x{row['count']}  {row['state']}"
        )
        lines.append(f"         {printable(row['message'], 300)}")
        lines += [f"         see: {command}"] if (command := show_command(row["anomalies"])) else []
        lines += [f"         {h['posterior']:.0%} {h['cause']}" for h in row["hypotheses"]]
        lines += [f"         did: {printable(action)}" for action in row["actions"]]
    return "\n".join(lines)


def usd(nusd: int) -> str:
    """Nano-USD as USD, exactly: no digit is lost or made up."""
    whole, part = divmod(abs(nusd), 10**9)
    return f"{'-' if nusd < 0 else ''}{whole:,}.{part:09d}"


def span(ns: int) -> str:
    """A duration in two units: 1h05m, 12m03s, 4.2s."""
    seconds = ns / 1e9
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def show_command(names: Sequence[str], log: str = "") -> str:
    """The command that shows the first three of these events or anomalies, safe to paste; "" = names nothing."""
    told = [shlex.quote(name) for name in names[:3] if name.isprintable() and not name.startswith("-")]
    source = f"--log {shlex.quote(log)} " if log and log.isprintable() else ""
    return f"argus show {source}{' '.join(told)}" if told else ""


def render_replay(report: ReplayReport, *, limit: int, log: str = "") -> str:
    """A replay's account: what was found by kind, what would have been stopped and spared, the first anomalies.

    log : file it was read from, for the commands that show events of it
    """
    rejected = ", ".join(f"{reason} {count}" for reason, count in sorted(report.rejected.items())) or "none"
    lines = [f"{report.events} events judged; rejected: {rejected}"]
    kinds = Counter((str(a.severity), a.series) for a in report.anomalies)
    lines.append(f"{len(report.anomalies)} anomalies in {len(report.incidents)} incidents")
    lines += [f"  {count:6} {severity:8} {printable(series, 80)}" for (severity, series), count in kinds.most_common()]
    lines.append(f"{len(report.stops)} stops that would have been made")
    if report.shadow is not None:
        lines += _stops_with_account(report, report.shadow, limit)
        lines += ["", *_rules(report.shadow), ""]
    else:
        lines += [_stop_line(stop) for stop in report.stops[:limit]]
    if report.anomalies:
        lines.append(f"first {min(limit, len(report.anomalies))} anomalies:")
        for anomaly in report.anomalies[:limit]:
            lines.append("  " + anomaly_line(anomaly))
            if log:
                lines.append("      " + show_command(anomaly.evidence, log))
    return "\n".join(lines)


def _stop_line(stop: Stop) -> str:
    when = datetime.fromtimestamp(stop.ts / 1e9, UTC).isoformat(timespec="milliseconds")
    scope = printable(str(stop.scope), 60)
    return f"  {when} {stop.kind} {stop.criterion} [{scope}] {printable(stop.reason, 200)}"


def _stops_with_account(report: ReplayReport, shadow: ShadowReport, limit: int) -> list[str]:
    lines = []
    for stop, account in zip(report.stops[:limit], shadow.stops, strict=False):
        cut = f", cut {account.cut} sessions" if account.cut > 1 else ""
        good = f" ({account.cut_good} good)" if account.cut_good and account.cut > 1 else ""
        judged = "" if account.verdict == "unknown" else f"; {account.verdict.upper()}"
        lines += [_stop_line(stop), f"      then came {_spared(account.after)}{cut}{good}{judged}"]
    if len(report.stops) > limit:
        lines.append(f"  and {len(report.stops) - limit} more: see --limit, or --json")
    return lines


def _spared(after: Spared) -> str:
    known = "" if after.metered_nusd == after.upper_nusd else f" at most ({usd(after.metered_nusd)} metered)"
    tokens = after.input_tokens + after.output_tokens
    return (
        f"{usd(after.upper_nusd)} USD{known}, {tokens:,} tokens, {after.model_calls:,} model and {after.tool_calls:,} "
        f"tool calls, {after.writes:,} writes in {span(after.wall_ns)}"
    )


def _rules(shadow: ShadowReport) -> list[str]:
    """The table of rules, and what their stops add up to; it is exact, so columns sum to the last digit."""
    head = ("rule", "asks for", "fired", "scopes", "stops", "false", "right", "spared USD", "tokens", "calls", "writes")
    rows = [head]
    for rule in shadow.rules:
        if rule.fired == 0:
            continue
        known = shadow.truth != ""
        judged = rule.stops_by_verdict if rule.stop else rule.fired_by_verdict
        rows.append(
            (
                rule.criterion,
                rule.stop or "nothing",
                f"{rule.fired:,}",
                f"{rule.scopes:,}",
                f"{rule.stops:,}",
                f"{judged['false']:,}" if known else "-",
                f"{judged['right']:,}" if known else "-",
                *_amounts(rule.after),
            )
        )
    both = Spared()
    both.add(shadow.after_kills)
    both.add(shadow.after_lockdowns)
    rows.append(("total", "", "", "", f"{len(shadow.stops):,}", "", "", *_amounts(both)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(_cell(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
             for row in rows]  # fmt: skip
    silent = [rule.criterion + ("" if rule.enabled else " (off)") for rule in shadow.rules if not rule.fired]
    lines.append("never held: " + (", ".join(name for name in silent if name != "info") or "none"))
    lines.append(f"kills spare     {_spared(shadow.after_kills)}")
    lines.append(
        f"lockdowns spare {_spared(shadow.after_lockdowns)}, from agents that ask their guard before each call"
    )
    lines.append(f"the whole log   {_spared(shadow.spent)}")
    lines.append(f"verdicts        {printable(shadow.truth) or 'none: no label, and no task that succeeded'}")
    if shadow.told_after:
        told = ", ".join(f"{printable(series, 40)} {count}" for series, count in list(shadow.told_after.items())[:6])
        lines.append(f"of stopped scopes, not counted again: {told}")
    return lines


def _amounts(after: Spared) -> tuple[str, str, str, str]:
    return (
        usd(after.upper_nusd),
        f"{after.input_tokens + after.output_tokens:,}",
        f"{after.model_calls + after.tool_calls:,}",
        f"{after.writes:,}",
    )


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 2 else text.rjust(width)


def render_verify(report: VerifyReport) -> str:
    """A verification's verdict on one or two lines."""
    if report.ok:
        return (
            f"journal holds: {report.records} records, {report.checkpoints} signed checkpoints, head {report.head[:16]}"
        )
    where = f"record {report.first_bad}" if report.first_bad is not None else "the file"
    return f"journal does NOT hold at {where}: {printable(report.reason, 300)}"
