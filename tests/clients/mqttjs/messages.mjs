// Publishes a list of payloads and receives them back, and receives the same list from the test: content, QoS and order.
// Stage "resolve" takes topic aliases of the node.

import { Device, check, payloads, run, same, say } from "./device.mjs";

await run(async (asked) => {
    // The node may then put aliases in place of topics, which MQTT.js resolves by itself, but for those of QoS 2.
    const more = asked.stage === "resolve" ? { properties: { topicAliasMaximum: 10 } } : {};
    const device = new Device(asked, { more });
    await device.connect();
    const [own, other] = [`${asked.topic}/own`, `${asked.topic}/other`];
    await device.subscribe(own, asked.qos);
    await device.subscribe(other, asked.qos);
    say("subscribed", { topic: asked.topic });
    const expected = payloads(asked.large && asked.qos === 1);
    const sent = expected.map((payload) => device.publish(own, payload, asked.qos));
    const got = { [own]: [], [other]: [] };
    while (Object.values(got).some((came) => came.length < expected.length)) {
        const message = await device.next();
        check(message.qos === asked.qos && !message.retain, `qos ${message.qos}, retain ${message.retain}`);
        got[message.topic].push(message.payload);
    }
    for (const [topic, came] of Object.entries(got)) check(same(came, expected), `${topic}: payloads differ or are out of order`);
    await Promise.all(sent);
    if (asked.stage === "resolve") say("resolved", { without_topic: device.aliased });
    await device.disconnect();
});
