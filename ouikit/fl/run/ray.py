"""Flower's simulation on Ray: the same apps as in one process, clients in parallel workers.

Needs `pip install 'ouikit[fl-ray]'`. Ray starts and stops with every run, which takes some seconds; a Ray
cluster that this process is already connected to is used as it is. At the size of the chapters the grid in
one process is faster; Ray is for clients that train for long.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from ouikit.fl.flower import ClientApp, Context, Grid, ServerApp
from ouikit.fl.run.grid import quiet
from ouikit.fl.strategies.reasons import answering

# Ray reads them when it is imported: no usage statistics, no warning about GPUs that are not there.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# In a notebook it would advise, on stderr, to install ipywidgets.
logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)


def run_ray(
    server_app: ServerApp, client_app: ClientApp, clients: int, run_config: Mapping[str, Any]
) -> Context:
    """Run a whole federation on Ray; arguments, result and errors as of `ouikit.fl.run.grid.run_local`.

    Each worker has one core, and there are as many as clients and cores allow.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
        from flwr.simulation import run_simulation
    except ImportError as error:
        raise ImportError("the engine flower-sim needs Ray: pip install 'ouikit[fl-ray]'") from error
    inner, left = ServerApp(), list[Context]()

    @inner.main()
    def main(grid: Grid, context: Context) -> None:
        """The simulation hands over no configuration, and returns nothing: both are done here."""
        context.run_config = dict(run_config)
        server_app(grid, context)
        left.append(context)

    workers = min(clients, os.cpu_count() or 1)
    before = os.environ.get("PYTHONPATH")
    try:
        with quiet():
            run_simulation(
                inner,
                answering(client_app),  # type: ignore[arg-type]  # it is called as one
                clients,
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                    "init_args": {"num_cpus": workers, "_node_ip_address": "127.0.0.1"},
                },
            )
    finally:  # Flower prepends all of `sys.path` for its workers, and leaves it so
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return left[0]
