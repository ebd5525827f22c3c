// Three members of a shared subscription take what the test publishes, each message once.

import { Device, Queue, check, run, say } from "./device.mjs";

await run(async (asked) => {
    // One queue for all: a member may get its messages at any time.
    const arrivals = new Queue();
    const members = [0, 1, 2].map((n) => new Device(asked, { suffix: `-member${n}` }));
    for (const member of members) {
        member.messages.put = (message) => arrivals.put({ member, message });
        await member.connect();
        await member.subscribe(`$share/crew/${asked.topic}/work`, asked.qos);
    }
    say("subscribed", { topic: asked.topic });
    const taken = new Set();
    for (let n = 0; n < asked.count; n += 1) {
        const { member, message } = await arrivals.take("work");
        taken.add(member.heard(message).payload.toString());
    }
    check(taken.size === asked.count, "a message came to two members");
    for (const member of members) await member.disconnect();
});
