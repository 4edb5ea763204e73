"""FireWorks' queue adapter, which does not feed the queue while its last workers have refused their work."""

from __future__ import annotations

from typing import Any

from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter
from fireworks.utilities.fw_utilities import get_fw_logger

from phononbench_flows.cluster import refusals
from phononbench_flows.cluster.launchpad import launchpad
from phononbench_flows.store import cluster_spec

_FULL = 1_000_000  # more jobs than anybody allows


class PatientAdapter(CommonAdapter):  # type: ignore[misc]
    """FireWorks' ``CommonAdapter``, for which the queue is full as long as a refusal is in the way of its jobs.

    In a ``my_qadapter.yaml`` it is ``_fw_name: '{{phononbench_flows.cluster.queue.PatientAdapter}}'``.
    """

    _fw_name = "{{phononbench_flows.cluster.queue.PatientAdapter}}"

    def get_njobs_in_queue(self, *args: Any, **kwargs: Any) -> int | None:
        """Number of the user's jobs in the queue; very many while none is to be submitted."""
        lp = launchpad(database=cluster_spec()["database"])
        try:
            refused = refusals.in_the_way(lp, self.get("job_name") or "FW_job")
        finally:
            lp.connection.close()
        if refused is not None:
            get_fw_logger("queue.patient").warning(
                "the queue is not fed until %s: the last %d workers refused, on %s: %s",
                f"{refused.until:%H:%M:%S} UTC",
                refused.number,
                refused.host,
                refused.why,
            )
            return _FULL
        return super().get_njobs_in_queue(*args, **kwargs)
