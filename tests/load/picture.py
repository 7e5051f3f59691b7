"""A picture of a run: latencies over time, failed requests, and where releases went live. SVG, by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from client import Record, percentile

WIDTH, HEIGHT = 1100, 420  # pixels
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 50, 45  # margins, pixels
FASTEST, SLOWEST = 0.001, 20.0  # seconds; the axis is logarithmic
LINES = {"p50": (0.5, "#2b8a3e"), "p99": (0.99, "#1864ab")}
STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.switch{stroke:#e8590c;stroke-dasharray:3 3}"
    ".control{fill:#c92a2a;opacity:.08}.failed{fill:#c92a2a}.longest{fill:#868e96}polyline{fill:none;stroke-width:1.5}"
)


def draw(title: str, records: Sequence[Record], switches: Sequence[float], control: float) -> str:
    """Return an SVG with the median, p99 and longest latency of each second, and the failed requests as red marks.

    Args:
        title: what is written above it.
        records: what the client noted, in the order in which requests were due. Slow ones show only if they failed.
        switches: when releases went live, seconds since the epoch.
        control: when the positive control began, seconds since the epoch.
    """
    begin, end = records[0].scheduled, records[-1].scheduled + 1

    def x(at: float) -> float:
        return round(LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT), 1)

    def y(seconds: float) -> float:
        share = math.log(min(max(seconds, FASTEST), SLOWEST) / FASTEST) / math.log(SLOWEST / FASTEST)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f'<style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/><text x="{LEFT}" y="20">{title}</text>',
        f'<rect class="control" x="{x(control)}" y="{TOP}" width="{round(x(end) - x(control), 1)}"'
        f' height="{HEIGHT - TOP - BOTTOM}"/>',
        f'<text x="{x(end)}" y="{TOP + 14}" text-anchor="end">restart</text>',
    ]
    for seconds, label in ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1, "1 s"), (10, "10 s")):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(seconds)}" y2="{y(seconds)}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(seconds) + 4}" text-anchor="end">{label}</text>')
    step = 30 if end - begin > 120 else 10
    parts += [
        f'<text x="{x(begin + second)}" y="{HEIGHT - 25}" text-anchor="middle">{second} s</text>'
        for second in range(0, int(end - begin), step)
    ]
    parts += [f'<line class="switch" x1="{x(at)}" x2="{x(at)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>' for at in switches]
    each_second = defaultdict(list)
    for record in records:
        if record.kind != "slow" and not record.fault:
            each_second[int(record.scheduled)].append(record.latency)
    for name, (share, colour) in LINES.items():
        points = " ".join(f"{x(at + 0.5)},{y(percentile(found, share))}" for at, found in sorted(each_second.items()))
        parts.append(f'<polyline id="{name}" stroke="{colour}" points="{points}"/>')
    parts += [f'<circle class="longest" r="1.5" cx="{x(at + 0.5)}" cy="{y(max(v))}"/>' for at, v in each_second.items()]
    faults = sorted({x(record.scheduled) for record in records if record.fault})
    parts += [f'<rect class="failed" x="{at}" y="{TOP - 10}" width="1.5" height="10"/>' for at in faults]
    legend = [*((name, colour) for name, (_, colour) in LINES.items()), ("longest", "#868e96")]
    legend += [("release goes live", "#e8590c"), ("failed", "#c92a2a")]
    for place, (name, colour) in enumerate(legend):
        at = LEFT + place * 130
        parts.append(f'<rect x="{at}" y="{HEIGHT - 14}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{at + 15}" y="{HEIGHT - 5}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
