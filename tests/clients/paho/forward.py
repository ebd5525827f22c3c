"""A device at the edge and a reader at the cloud: content, QoS, order and properties are the same on both sides."""

from device import USER, Device, check, payloads, run, say

CORRELATION = b"\x00\x01corr\xff"


def scenario(asked):
    reader = Device(asked, "-reader", port=asked.peer_port)
    reader.connect()
    reader.subscribe(f"{asked.topic}/#", asked.at_qos)
    say("subscribed", topic=asked.topic)
    device = Device(asked, "-device")
    device.connect()
    sent = payloads(False)
    described = {}
    if asked.version == 5:
        described = {"content_type": "text/plain", "response_topic": f"{asked.topic}/answers", "correlation": CORRELATION}
        described |= {"expiry": 300, "user": USER}
    infos = [device.publish(f"{asked.topic}/up", payload, asked.at_qos, **described) for payload in sent]
    for payload in sent:
        message = reader.next_message()
        check((message.payload, message.qos) == (payload, asked.at_qos), "payload or QoS at the cloud")
        if asked.version == 5:
            check(message.properties["correlation"] == CORRELATION.hex(), "correlation data at the cloud")
            check([tuple(pair) for pair in message.properties["user"]] == USER, "user properties at the cloud")
    for info in infos:
        device.acked(info)
    device.disconnect()
    reader.disconnect()


run(scenario)
