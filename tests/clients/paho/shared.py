"""Three members of a shared subscription take what the test publishes, each message once."""

import queue

from device import DEADLINE_S, Device, check, run, say


def scenario(asked):
    members = [Device(asked, f"-member{n}") for n in range(3)]
    # One queue for all: a member may get its messages at any time.
    arrivals = queue.Queue()
    for member in members:
        member.client.on_message = lambda _c, _u, message, member=member: arrivals.put((member, message))
        member.connect()
        member.subscribe(f"$share/crew/{asked.topic}/work", asked.at_qos)
    say("subscribed", topic=asked.topic)
    taken = []
    while len(taken) < asked.count:
        member, message = arrivals.get(timeout=DEADLINE_S)
        member.messages.put(message)
        taken.append(member.next_message().payload)
    check(len(set(taken)) == asked.count, "a message came to two members")
    for member in members:
        member.disconnect()


run(scenario)
