"""Publishes a list of payloads and receives them back, and receives the same list from the test: content, QoS and order."""

from device import Device, check, payloads, run, say


def scenario(asked):
    device = Device(asked)
    device.connect()
    own, other = f"{asked.topic}/own", f"{asked.topic}/other"
    device.subscribe(own, asked.at_qos)
    device.subscribe(other, asked.at_qos)
    say("subscribed", topic=asked.topic)
    expected = payloads(asked.large and asked.at_qos == 1)
    sent = [device.publish(own, payload, asked.at_qos) for payload in expected]
    got = {own: [], other: []}
    while any(len(came) < len(expected) for came in got.values()):
        message = device.next_message()
        check(message.qos == asked.at_qos and not message.retain, f"qos {message.qos}, retain {message.retain}")
        got[message.topic].append(message.payload)
    for topic, came in got.items():
        check(came == expected, f"{topic}: payloads differ or are out of order")
    for info in sent:
        device.acked(info)
    device.disconnect()


run(scenario)
