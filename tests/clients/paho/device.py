"""What the scenarios with paho-mqtt have in common: arguments, JSON lines, and one connection with deadlines.

In: arguments and, where a scenario waits for the test, lines "go" on standard input. Out: one JSON object per line on standard output.
A scenario runs once per version and QoS. The process ends with 0 only when all that it checks holds.
"""

import argparse
import itertools
import json
import queue
import ssl
import sys
from dataclasses import asdict, dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_S = 30
# Duplicates beside one another: a client that keeps properties in a map must not be judged by the order of different names.
USER = [("zone", "north"), ("zone", "south"), ("unit", "°C")]

PROPERTY_NAMES = {
    "payload_format": "PayloadFormatIndicator",
    "expiry": "MessageExpiryInterval",
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "correlation": "CorrelationData",
    "user": "UserProperty",
    "identifiers": "SubscriptionIdentifier",
    "alias": "TopicAlias",
}


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def await_go():
    check(sys.stdin.readline().strip() == "go", "the test ended before it said go")


def payloads(large):
    """What is published, in order. The test makes the same list."""
    listed = [b"", bytes(range(256)), "grüße ✓".encode(), *(b"%02d" % n for n in range(20))]
    if large:
        listed.append(bytes((at * 31 + 7) % 251 for at in range(1 << 20)))
    return listed


def encoded(packet_type, plain):
    properties = Properties(packet_type)
    for name, value in plain.items():
        setattr(properties, PROPERTY_NAMES[name], value)
    return properties


def plain_properties(message):
    found = {}
    for name, attribute in PROPERTY_NAMES.items():
        value = getattr(getattr(message, "properties", None), attribute, None)
        if value is not None:
            found[name] = value.hex() if isinstance(value, bytes) else value
    return found


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--peer-port", type=int, help="port of the node that delivers, where it is another one")
    parser.add_argument("--transport", choices=["tcp", "ws", "tls", "wss"], default="tcp")
    parser.add_argument("--ca", help="PEM file with the certificate that the node's must be signed by")
    parser.add_argument("--versions", default="3,5")
    parser.add_argument("--qos", default="0,1,2")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--stage", default="")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--large", action="store_true")
    return parser.parse_args()


def run(scenario):
    """Runs `scenario` for each version and QoS that was asked for, and returns what it returned."""
    asked, results = options(), []
    prefix, client_id = asked.topic, asked.id
    for version, qos in itertools.product(asked.versions.split(","), asked.qos.split(",")):
        asked.version, asked.at_qos = int(version), int(qos)
        asked.topic = f"{prefix}/{version}/{qos}"
        asked.id = f"{client_id}-{version}-{qos}"
        results.append(scenario(asked))
    say("done")
    return results


@dataclass
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict


class Device:
    """One connection. Every wait has a deadline, and a lost connection is not repaired."""

    def __init__(self, asked, suffix="", clean=True, expiry=0, will=None, port=None):
        self.asked, self.clean, self.port = asked, clean, port or asked.port
        self.is_5 = asked.version == 5
        self.expiry = expiry
        self.id = asked.id + suffix
        self.answers, self.messages, self.ends = queue.Queue(), queue.Queue(), queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self.id,
            clean_session=None if self.is_5 else clean,
            protocol=mqtt.MQTTv5 if self.is_5 else mqtt.MQTTv311,
            transport="websockets" if asked.transport in ("ws", "wss") else "tcp",
            reconnect_on_failure=False,
        )
        if asked.transport in ("tls", "wss"):
            self.client.tls_set(ca_certs=asked.ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if will:
            self.client.will_set(*will)
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.answers.put((flags, reason))
        self.client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.answers.put(reasons)
        self.client.on_unsubscribe = lambda _c, _u, _mid, reasons, _p: self.answers.put(reasons)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.ends.put(reason)

    def connect(self):
        """Connects and returns whether the node had the session."""
        extra = {}
        if self.is_5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self.expiry
            extra = {"clean_start": self.clean, "properties": properties}
        self.client.connect(self.asked.host, self.port, keepalive=60, **extra)
        self.client.loop_start()
        flags, reason = self.answers.get(timeout=DEADLINE_S)
        check(not reason.is_failure, f"{self.id}: refused with {reason}")
        say("connected", client=self.id, session_present=flags.session_present)
        return flags.session_present

    def subscribe(self, topic_filter, qos, **properties):
        extra = encoded(PacketTypes.SUBSCRIBE, properties) if properties else None
        self.client.subscribe(topic_filter, qos, properties=extra)
        reasons = self.answers.get(timeout=DEADLINE_S)
        check([reason.value for reason in reasons] == [qos], f"{topic_filter}: granted {reasons} in place of {qos}")

    def publish(self, topic, payload, qos, retain=False, **properties):
        """Publishes without waiting; the result's wait_for_publish waits for the acknowledgement."""
        extra = encoded(PacketTypes.PUBLISH, properties) if properties else None
        info = self.client.publish(topic, payload, qos, retain, properties=extra)
        check(info.rc == mqtt.MQTT_ERR_SUCCESS, f"{topic}: publish gave {info.rc}")
        return info

    def fence(self):
        """Returns once the node has handled all that was sent before: it answers in order."""
        self.acked(self.publish(f"{self.asked.topic}/fence", b"fence", 1))

    def acked(self, info):
        info.wait_for_publish(DEADLINE_S)
        check(info.is_published(), f"{self.id}: no acknowledgement in {DEADLINE_S} s")

    def next_message(self):
        came = self.messages.get(timeout=DEADLINE_S)
        message = Message(came.topic, came.payload, came.qos, came.retain, plain_properties(came))
        say("message", client=self.id, **{**asdict(message), "payload": message.payload.hex()})
        return message

    def disconnect(self):
        """Says goodbye and waits for the end of the connection."""
        self.client.disconnect()
        self.ends.get(timeout=DEADLINE_S)
        self.client.loop_stop()
