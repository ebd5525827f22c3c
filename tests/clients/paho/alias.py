"""Publishes under topic aliases: the full topic once, then the alias alone."""

from device import Device, run, say

TOPICS = ["one", "two", "three"]


def scenario(asked):
    device = Device(asked)
    device.connect()
    for turn in range(asked.count):
        for alias, name in enumerate(TOPICS, start=1):
            topic = f"{asked.topic}/{name}" if turn == 0 else ""
            device.acked(device.publish(topic, b"%s %d" % (name.encode(), turn), asked.at_qos, alias=alias))
    say("aliased", without_topic=len(TOPICS) * (asked.count - 1))
    device.disconnect()


run(scenario)
