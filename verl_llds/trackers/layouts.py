"""Ready layouts of our metrics for trackers that have such a thing, made of the table of metrics.

verl logs the same names to every tracker. wandb and TensorBoard can be told how to arrange them; mlflow, swanlab and
trackio arrange them by the first part of their names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from verl_llds.errors import PluginError
from verl_llds.trackers.catalogue import SECTIONS

WANDB_SCRIPT = '''\
"""A wandb workspace for runs of verl-llds: one section a subject, one plot a metric.

    pip install wandb-workspaces
    python {name} ENTITY PROJECT
"""

import json
import sys

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

SECTIONS = json.loads(
    r"""
{sections}
"""
)


def workspace(entity: str, project: str) -> ws.Workspace:
    """Return the workspace, not yet saved."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name="verl-llds",
        sections=[
            ws.Section(
                name=section["title"],
                is_open=number == 0,
                panels=[
                    wr.LinePlot(title=plot["title"], title_y=plot["unit"], x="Step", y=plot["metrics"])
                    for plot in section["plots"]
                ],
            )
            for number, section in enumerate(SECTIONS)
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {{sys.argv[0]}} ENTITY PROJECT")
    print(workspace(*sys.argv[1:]).save().url)
'''
"""A script, since a workspace is made through wandb's own interface, by its user's login."""


def wandb_script(name: str) -> str:
    """Return a Python script that makes a wandb workspace; ``name`` is what it will be called."""
    sections = [
        {
            "title": section.title,
            "plots": [
                {"title": metric.title, "unit": metric.unit, "metrics": metric.names} for metric in section.metrics
            ],
        }
        for section in SECTIONS
    ]
    return WANDB_SCRIPT.format(name=name, sections=json.dumps(sections, indent=1))


def write_tensorboard_layout(folder: Path) -> None:
    """Write an event file with the layout of TensorBoard's tab "Custom Scalars" beside a run's event files.

    Raises:
        PluginError: TensorBoard is not installed.
        OSError: the folder cannot be written to.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PluginError("a layout for TensorBoard needs TensorBoard: pip install tensorboard") from error
    layout = {
        section.title: {
            # Tags are patterns, which would find longer names, too.
            metric.title: ["Multiline", [f"^{re.escape(name)}$" for name in metric.names]]
            for metric in section.metrics
        }
        for section in SECTIONS
    }
    with SummaryWriter(str(folder), filename_suffix=".layout") as writer:
        writer.add_custom_scalars(layout)
