"""``verl-llds doctor``: find out before a run whether verl, this plugin and the machine fit together.

Each check yields findings of one line each; a problem's line ends with what to do next. A check that fails in
a way nobody foresaw is a finding too, so that one broken part does not hide the state of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from verl_llds.doctor.findings import Finding, Platform, Status
from verl_llds.doctor.installation import check_entry_points, check_python, check_versions
from verl_llds.doctor.registration import check_ray_worker, check_this_process, missing_registrations
from verl_llds.doctor.surroundings import check_api, check_device, check_hydra, check_retriever

__all__ = ["Finding", "Platform", "Status", "diagnose", "missing_registrations"]


def diagnose(platform: Platform, *, retriever: str | None = None, skip_ray: bool = False) -> Iterator[Finding]:
    """Yield the findings of every check, those first on which the later ones build.

    Args:
        platform: what the runs to come compute on.
        retriever: address of a retriever to ask, or None to leave it out.
        skip_ray: whether to leave out the check that starts a local Ray.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("Python", check_python),
        ("versions", check_versions),
        ("entry points", check_entry_points),
        ("plugin in this process", check_this_process),
        ("verl API", check_api),
        ("Hydra groups", check_hydra),
        ("device", partial(check_device, platform)),
    ]
    if not skip_ray:
        checks.append(("plugin in a Ray worker", partial(check_ray_worker, platform)))
    if retriever is not None:
        checks.append(("retriever", partial(check_retriever, retriever)))
    for subject, check in checks:
        try:
            yield from check()
        # The plugin ends a process in which it cannot attach; the report goes on.
        except (Exception, SystemExit) as error:
            cause = error.__cause__ or error
            yield Finding(Status.FAIL, subject, f"stopped by {type(cause).__name__}: {cause}; mend that first")
