/*
 * screenshot.js - a picture of the status page of a proxy that runs
 *
 *     node screenshot.js http://127.0.0.1:9380/ docs/images/status.png [light|dark]
 *
 * The one in docs/images is of a cluster, two proxies and a quarter of an hour of mixed load.
 */
"use strict";

const { chromium } = require("playwright-core");

async function main() {
    const [url, path, colorScheme] = process.argv.slice(2);
    const browser = await chromium.launch({ executablePath: "/usr/bin/chromium",
        args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
    const page = await browser.newPage({ viewport: { width: 1280, height: 1200 }, colorScheme: colorScheme || "light" });
    await page.goto(url);
    await page.locator(".plot path").first().waitFor();
    /* Rates need two answers. */
    await page.waitForTimeout(6000);
    const end = await page.locator("#spaces").evaluate(table => table.getBoundingClientRect().bottom + window.scrollY);
    await page.setViewportSize({ width: 1280, height: Math.ceil(end) + 28 });
    await page.waitForTimeout(1000);
    await page.screenshot({ path });
    await browser.close();
}
main();
