"""A second connection with the same client ID: the first one is told and closed, the second one is served."""

from device import DEADLINE_S, Device, check, run, say


def scenario(asked):
    first, second = Device(asked), Device(asked)
    first.connect()
    first.subscribe(f"{asked.topic}/first", asked.at_qos)
    second.connect()
    reason = first.ends.get(timeout=DEADLINE_S)
    if asked.version == 5:
        check(reason.value == 0x8E, f"closed with {reason}")
    say("taken", client=first.id, reason=reason.value)
    second.subscribe(f"{asked.topic}/second", asked.at_qos)
    say("subscribed", topic=asked.topic)
    second.next_message()
    second.disconnect()


run(scenario)
