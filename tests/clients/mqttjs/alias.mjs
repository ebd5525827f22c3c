// Publishes with aliases that MQTT.js assigns by itself: the full topic once, then the alias alone.

import { Device, run, say } from "./device.mjs";

const TOPICS = ["one", "two", "three"];

await run(async (asked) => {
    const device = new Device(asked, { more: { autoAssignTopicAlias: true } });
    await device.connect();
    let withoutTopic = 0;
    device.client.on("packetsend", (packet) => {
        if (packet.cmd === "publish" && packet.topic === "") withoutTopic += 1;
    });
    for (let turn = 0; turn < asked.count; turn += 1) {
        for (const name of TOPICS) await device.publish(`${asked.topic}/${name}`, `${name} ${turn}`, asked.qos);
    }
    say("aliased", { without_topic: withoutTopic });
    await device.disconnect();
});
