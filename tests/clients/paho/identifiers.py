"""Two overlapping subscriptions with identifiers: a message says which of them it matched."""

from device import Device, run, say


def scenario(asked):
    device = Device(asked)
    device.connect()
    device.subscribe(f"{asked.topic}/+", asked.at_qos, identifiers=7)
    device.subscribe(f"{asked.topic}/both", asked.at_qos, identifiers=268435455)
    say("subscribed", topic=asked.topic)
    while device.next_message().topic != f"{asked.topic}/end":
        pass
    device.disconnect()


run(scenario)
