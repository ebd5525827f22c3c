"""Sets a retained message twice, reads the newest one back, deletes it, and finds nothing."""

from device import Device, await_go, check, run, say

KEPT = b"kept \x00\xff"


def scenario(asked):
    topic = f"{asked.topic}/kept"
    device = Device(asked)
    device.connect()
    device.publish(topic, b"replaced", asked.at_qos, retain=True)
    device.publish(topic, KEPT, asked.at_qos, retain=True)
    device.fence()
    say("kept", topic=topic)
    await_go()

    reader = Device(asked, "-reader")
    reader.connect()
    reader.subscribe(topic, asked.at_qos)
    message = reader.next_message()
    check((message.payload, message.qos, message.retain) == (KEPT, asked.at_qos, True), "the retained message")
    reader.disconnect()

    device.publish(topic, b"", asked.at_qos, retain=True)
    device.fence()
    say("deleted", topic=topic)
    await_go()

    late = Device(asked, "-late")
    late.connect()
    late.subscribe(topic, asked.at_qos)
    late.subscribe(f"{asked.topic}/fence", 1)
    late.fence()
    check(late.next_message().topic == f"{asked.topic}/fence", "the deleted message came back")
    late.disconnect()
    device.disconnect()


run(scenario)
