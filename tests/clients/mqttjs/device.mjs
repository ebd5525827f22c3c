// What the scenarios with MQTT.js have in common: arguments, JSON lines, and one connection with deadlines.
//
// In: arguments and, where a scenario waits for the test, lines "go" on standard input. Out: one JSON object per line on standard output.
// A scenario runs once per version and QoS. The process ends with 0 only when all that it checks holds.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

// MQTT.js is installed outside of the sources, where an import would not find it.
const mqtt = createRequire(join(process.env.MQTTJS_DIR, "package.json"))("mqtt");

const DEADLINE_MS = 30_000;
// Duplicates beside one another: MQTT.js keeps user properties by name.
export const USER = { zone: ["north", "south"], unit: "°C" };
export const CORRELATION = Buffer.from([0, 1, 0x63, 0x6f, 0x72, 0x72, 0xff]);

const SCHEMES = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" };

export function say(event, fields) {
    process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

export function check(holds, what) {
    if (!holds) throw new Error(what);
}

const words = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function awaitGo() {
    const { value } = await words.next();
    check(value === "go", "the test ended before it said go");
}

/** What is published, in order. The test makes the same list. */
export function payloads(large) {
    const listed = [Buffer.alloc(0), Buffer.from(Array.from({ length: 256 }, (_, at) => at)), Buffer.from("grüße ✓")];
    for (let n = 0; n < 20; n += 1) listed.push(Buffer.from(String(n).padStart(2, "0")));
    if (large) listed.push(Buffer.from(Array.from({ length: 1 << 20 }, (_, at) => (at * 31 + 7) % 251)));
    return listed;
}

export function same(one, other) {
    return one.length === other.length && one.every((payload, at) => payload.equals(other[at]));
}

function options() {
    const text = { type: "string" };
    const { values } = parseArgs({
        options: {
            host: text,
            port: text,
            "peer-port": text,
            transport: { ...text, default: "tcp" },
            ca: text,
            versions: { ...text, default: "3,5" },
            qos: { ...text, default: "0,1,2" },
            topic: text,
            id: text,
            stage: { ...text, default: "" },
            count: { ...text, default: "0" },
            large: { type: "boolean", default: false },
        },
    });
    return { ...values, count: Number(values.count) };
}

/** Runs `scenario` for each version and QoS that was asked for, then `end` with what it returned, and ends the process. */
export async function run(scenario, end = async () => {}) {
    const asked = options();
    const results = [];
    for (const version of asked.versions.split(",")) {
        for (const qos of asked.qos.split(",")) {
            const topic = `${asked.topic}/${version}/${qos}`;
            const id = `${asked.id}-${version}-${qos}`;
            results.push(await scenario({ ...asked, version: Number(version), qos: Number(qos), topic, id }));
        }
    }
    await end(results);
    say("done");
    // Standard input is open as long as the test holds it.
    process.stdin.destroy();
}

/** A queue whose reader waits for a writer, with a deadline. */
export class Queue {
    #items = [];
    #readers = [];

    put(item) {
        const reader = this.#readers.shift();
        if (reader) reader(item);
        else this.#items.push(item);
    }

    async take(what) {
        if (this.#items.length > 0) return this.#items.shift();
        return await within(what, new Promise((resolve) => this.#readers.push(resolve)));
    }
}

async function within(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`waited ${DEADLINE_MS} ms in vain: ${what}`)), DEADLINE_MS);
    });
    try {
        return await Promise.race([promise, late]);
    } finally {
        clearTimeout(timer);
    }
}

/** One connection. Every wait has a deadline, and a lost connection is not repaired. */
export class Device {
    constructor(asked, { suffix = "", clean = true, expiry = 0, will, port = asked.port, more = {} } = {}) {
        this.asked = asked;
        this.id = asked.id + suffix;
        this.url = `${SCHEMES[asked.transport]}://${asked.host}:${port}/mqtt`;
        this.settings = {
            protocolVersion: asked.version === 5 ? 5 : 4,
            clientId: this.id,
            clean,
            will,
            reconnectPeriod: 0,
            resubscribe: false,
            ca: asked.ca ? readFileSync(asked.ca) : undefined,
            ...more,
        };
        if (asked.version === 5) this.settings.properties = { sessionExpiryInterval: expiry, ...more.properties };
        this.messages = new Queue();
        // Packets that arrived under an alias alone.
        this.aliased = 0;
    }

    /** Connects and returns whether the node had the session. */
    async connect() {
        const answers = new Queue();
        const ends = new Queue();
        this.ends = ends;
        this.client = mqtt.connect(this.url, this.settings);
        this.client.on("connect", (packet) => answers.put(packet));
        this.client.on("error", (error) => answers.put(error));
        this.client.on("message", (topic, payload, packet) => this.messages.put({ topic, payload, packet }));
        this.client.on("packetreceive", (packet) => {
            if (packet.cmd === "publish" && packet.topic === "") this.aliased += 1;
        });
        this.client.on("disconnect", (packet) => {
            this.reason = packet.reasonCode;
        });
        this.client.on("close", () => ends.put(this.reason));
        const answer = await answers.take(`${this.id}: CONNACK`);
        if (answer instanceof Error) throw answer;
        say("connected", { client: this.id, session_present: answer.sessionPresent });
        return answer.sessionPresent;
    }

    async subscribe(filter, qos, properties) {
        const granted = await within(`SUBACK for ${filter}`, this.client.subscribeAsync(filter, { qos, properties }));
        check(granted.length === 1 && granted[0].qos === qos, `${filter}: granted ${JSON.stringify(granted)}`);
    }

    /** Resolves with the acknowledgement; at QoS 0 when it is written. */
    async publish(topic, payload, qos, more = {}) {
        await within(`acknowledgement of ${topic}`, this.client.publishAsync(topic, payload, { qos, ...more }));
    }

    /** Returns once the node has handled all that was sent before: it answers in order. */
    async fence() {
        await this.publish(`${this.asked.topic}/fence`, "fence", 1);
    }

    async next() {
        return this.heard(await this.messages.take(`${this.id}: a message`));
    }

    /** Prints what came. */
    heard({ topic, payload, packet }) {
        const properties = plain(packet.properties ?? {});
        const message = { client: this.id, topic, payload, qos: packet.qos, retain: packet.retain, properties };
        say("message", { ...message, payload: payload.toString("hex") });
        return message;
    }

    /** Says goodbye and waits for the end of the connection. */
    async disconnect() {
        await within(`${this.id}: the end`, this.client.endAsync());
    }
}

function plain(properties) {
    const found = {
        payload_format: properties.payloadFormatIndicator === undefined ? undefined : Number(properties.payloadFormatIndicator),
        expiry: properties.messageExpiryInterval,
        content_type: properties.contentType,
        response_topic: properties.responseTopic,
        correlation: properties.correlationData?.toString("hex"),
        alias: properties.topicAlias,
    };
    if (properties.userProperties) found.user = Object.entries(properties.userProperties).flatMap(pairs);
    if (properties.subscriptionIdentifier) found.identifiers = [properties.subscriptionIdentifier].flat();
    return found;
}

export function pairs([name, values]) {
    return [values].flat().map((value) => [name, value]);
}
