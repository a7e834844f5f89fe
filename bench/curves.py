#!/usr/bin/env python3
"""Curves of several runs as one SVG: curves.py OUT.svg TITLE metric[,metric…] RUN_DIR…   (metrics.jsonl of each run; one panel per metric, one line per run)"""
import json, sys

out, title, metrics, runs = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4:]
W, H, PAD = 360, 220, 44
COLORS = ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626"]


def load(run, metric):
    points = []
    for line in open(run + "/metrics.jsonl"):
        row = json.loads(line)
        if isinstance(row.get(metric), (int, float)):
            points.append((row["step"], row[metric]))
    return points


def panel(metric, x0):
    series = [load(r, metric) for r in runs]
    xs = [x for s in series for x, _ in s]
    ys = [y for s in series for _, y in s]
    lo, hi = min(ys), max(ys)
    if hi == lo:
        hi = lo + 1
    place = lambda x, y: (x0 + PAD + (x - min(xs)) / max(1, max(xs) - min(xs)) * (W - PAD - 12), H - 28 - (y - lo) / (hi - lo) * (H - 64))
    text = [f'<text x="{x0 + PAD}" y="28" font-size="13" font-weight="600">{metric}</text>']
    for k in range(5):
        v = lo + (hi - lo) * k / 4
        _, y = place(min(xs), v)
        text.append(f'<line x1="{x0 + PAD}" x2="{x0 + W - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d4d4d8" stroke-width="0.6"/><text x="{x0 + PAD - 5}" y="{y + 4:.1f}" font-size="10" text-anchor="end">{v:.3g}</text>')
    for k in range(4):
        v = round(min(xs) + (max(xs) - min(xs)) * k / 3)
        x, _ = place(v, lo)
        text.append(f'<text x="{x:.1f}" y="{H - 12}" font-size="10" text-anchor="middle">{v}</text>')
    for s, c in zip(series, COLORS):
        text.append(f'<polyline fill="none" stroke="{c}" stroke-width="1.5" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in s))}"/>')
    return "\n".join(text)


with open(out, "w") as f:
    width = W * len(metrics)
    f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {H + 16}" font-family="sans-serif" fill="#27272a"><title>{title}</title><rect width="100%" height="100%" fill="#ffffff"/>\n')
    f.write("\n".join(panel(m, i * W) for i, m in enumerate(metrics)))
    names = "   ".join(r.rstrip("/").split("/")[-1] for r in runs)
    f.write(f'\n<text x="{width / 2}" y="{H + 8}" font-size="11" text-anchor="middle">{title}; iterations</text></svg>\n')
