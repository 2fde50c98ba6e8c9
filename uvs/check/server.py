"""Another homeserver, by its name: are its people let in, where is it, and does it answer what it would be asked?"""

from __future__ import annotations

from contextlib import suppress

from uvs.check.people import NOT_LET_IN
from uvs.check.rows import Group
from uvs.errors import CannotTell, Refusal
from uvs.homeserver.client_api import START_UP_CHECK
from uvs.matrix.identifiers import ServerName
from uvs.net.destination import Step
from uvs.settings import OwnHomeserver
from uvs.verification.decision import Refused
from uvs.ways import Ways

LET_IN, FOUND, ANSWERS = "people let in", "destination", "answers"


async def check_server(group: Group, name: ServerName, own: tuple[OwnHomeserver, ...], ways: Ways) -> None:
    """Add the rows. What the running service remembers of `name` is not known here: all is looked up anew."""
    group.begin(LET_IN)
    names = {each.server_name for each in own}
    with suppress(CannotTell):  # its own rows say so
        names.add(await ways.homeservers[0].server_name())
    if name in names:
        group.ok(LET_IN, "it is one of your own")
        group.skip("your own are asked at their URL", FOUND, ANSWERS)
        return
    refusal = ways.policy.refusal(name)
    if refusal is None:
        group.ok(LET_IN, "yes")
    else:
        group.fail(LET_IN, NOT_LET_IN[refusal], f"no ({refusal})")
    if not await _find(group, name, ways):
        group.skip(f"{FOUND} comes first", ANSWERS)
    elif refusal is not None:
        group.skip("its people are not let in, so it is not asked", ANSWERS)
    else:
        await _ask(group, name, ways)


async def _find(group: Group, name: ServerName, ways: Ways) -> bool:
    def heard(step: Step) -> None:
        if step.good:
            group.ok(step.name, step.outcome)
        elif step.name == FOUND:
            mend = "Compare the name with what stands in its people's ids. The rest its operator has to mend, or "
            group.fail(FOUND, mend + "whoever runs the name servers and the firewall here.", step.outcome)
        else:
            group.skip(step.outcome, step.name)  # as it often is; there are other ways
        group.begin(FOUND)

    group.begin(FOUND)
    try:
        await ways.discovery.find(name, tell=heard)
    except CannotTell:
        return False  # it was the last step
    return True


async def _ask(group: Group, name: ServerName, ways: Ways) -> None:
    """Ask it about a token that nobody holds."""
    group.begin(ANSWERS)
    try:
        outcome = await ways.verifier.user(START_UP_CHECK, name)
    except CannotTell as error:
        mend = "If others answer, its operator has to mend this one. If none does, see what blocks the way out of here."
        group.fail(ANSWERS, mend, error.detail or str(error))
        return
    if isinstance(outcome, Refused) and outcome.reason is Refusal.BAD_TOKEN:
        group.ok(ANSWERS, "it refuses a token that it has not made, as it should")
    else:
        group.fail(ANSWERS, "Name it in UVS_FEDERATION_DENY.", "it vouches for a token that nobody made")
