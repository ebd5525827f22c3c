"""Leaves wills with the node and waits: to be killed, or for the word to say goodbye."""

from device import Device, await_go, run, say


def scenario(asked):
    device = Device(asked, will=(f"{asked.topic}/will", b"gone \x00\xff", asked.at_qos, False))
    device.connect()
    return device


devices = run(scenario)
say("waiting")
await_go()
for device in devices:
    device.disconnect()
say("gone")
