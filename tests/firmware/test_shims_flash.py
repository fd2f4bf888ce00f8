"""The flash of the emulated board, its NVS and its random numbers behave as those of an ESP32."""

from __future__ import annotations

import asyncio

from shim_bench import ERROR, bench, output, run


def test_flash_clears_bits_and_only_erasing_sets_them() -> None:
    async def story() -> None:
        assert await output(
            """
                from esp32 import Partition
                p = Partition.find(Partition.TYPE_DATA, label="vfs")[0]
                print(p.info()[0], p.info()[4], p.ioctl(5, 0), p.ioctl(4, 0))
                b = bytearray(4)
                p.ioctl(6, 200)
                p.writeblocks(200, b"\\xf0\\xff\\xff\\xff", 8)
                p.writeblocks(200, b"\\xff\\x0f\\xff\\xff", 8)
                p.readblocks(200, b, 8)
                print(b)
                p.writeblocks(200, b"\\x01" * 4096)
                p.readblocks(200, b, 4092)
                print(b)
                try:
                    p.readblocks(240, b)
                except OSError as problem:
                    print(problem.errno)
                print(Partition.find(Partition.TYPE_APP), len(Partition.find(label="nvs")))
                """
        ) == [
            "1 vfs 4096 240",
            "bytearray(b'\\xf0\\x0f\\xff\\xff')",
            "bytearray(b'\\x01\\x01\\x01\\x01')",
            "22",
            "[] 1",
        ]

    run(story)


def test_files_and_nvs_survive_a_power_cut_at_any_moment() -> None:
    async def story() -> None:
        async with bench() as b:
            script = """
            import os
            from esp32 import NVS
            nvs = NVS("test")
            try:
                old = nvs.get_i32("count")
            except OSError:
                old = 0
            try:
                kept = open("/count").read()
            except OSError:
                kept = "0"
            print("found", kept.isdigit(), old <= int(kept) + 1, int(kept) <= old + 1)
            i = max(old, int(kept))
            while True:
                i += 1
                nvs.set_i32("count", i)
                nvs.set_blob("filling", bytes(i % 50))
                nvs.commit()
                with open("/count.new", "w") as file:
                    file.write(str(i))
                os.rename("/count.new", "/count")
            """
            for pause in (0.02, 0.05, 0.03, 0.04, 0.06):
                await b.start(script)
                await b.until("found True True True")
                await asyncio.sleep(pause)
                await b.kill()
            await b.start("from esp32 import NVS\nprint(NVS('test').get_i32('count') > 5, open('/count').read() > '0')")
            assert await b.end() == ["True True"]

    run(story)


def test_the_system_may_erase_nvs_whole_and_files_stay() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                "from esp32 import NVS\nn = NVS('x')\nn.set_i32('k', 1)\nn.commit()\n"
                "with open('/f', 'w') as file:\n    file.write('kept')"
            )
            await b.end()
            b.board.lose_nvs()
            await b.start(ERROR + "from esp32 import NVS\nprint(error(NVS('x').get_i32, 'k'), open('/f').read())")
            assert await b.end() == ["-4354 kept"]

    run(story)


def test_random_numbers_are_random_only_while_the_radio_is_on() -> None:
    async def story() -> None:
        async with bench() as b:
            script = """
            import os, bluetooth
            print(os.urandom(8))
            ble = bluetooth.BLE()
            ble.active(True)
            print(os.urandom(8))
            ble.active(False)
            print(os.urandom(8), os.listdir("/") is not None)
            """
            runs = []
            for _ in range(2):
                await b.start(script)
                runs.append(await b.end())
            assert runs[0][0] == runs[1][0]
            assert runs[0][1] != runs[1][1]
            assert runs[0][2] == runs[1][2]

    run(story)


def test_nvs_keeps_what_was_committed() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                ERROR
                + """
from esp32 import NVS
n = NVS("one")
print(error(n.get_i32, "x"), error(n.erase_key, "x"))
n.set_i32("x", -5)
n.set_blob("b", b"abc")
n.commit()
NVS("two").set_i32("x", 7)     # never committed
n.set_i32("late", 1)
buffer = bytearray(10)
print(n.get_i32("x"), n.get_blob("b", buffer), buffer[:3], error(n.get_i32, "b"), error(n.get_blob, "b", bytearray(1)))
"""
            )
            assert await b.end() == ["-4354 -4354", "-5 3 bytearray(b'abc') -4354 -4364"]
            await b.start(
                ERROR
                + """
from esp32 import NVS
n = NVS("one")
print(n.get_i32("x"), error(n.get_i32, "late"), error(NVS("two").get_i32, "x"))
n.erase_key("x")
n.commit()
print(error(n.get_i32, "x"))
"""
            )
            assert await b.end() == ["-5 -4354 -4354", "-4354"]

    run(story)


def test_a_blank_flash_is_formatted_and_a_damaged_one_left_alone() -> None:
    async def story() -> None:
        async with bench() as b:
            listing = "import os, vfs\nprint([path for _, path in vfs.mount()])"
            await b.start(listing)
            assert await b.end() == ["['/rom', '/']"]
            b.board.flash[0x10000:0x12000] = b"\x5a" * 0x2000
            await b.start(listing)
            lines = await b.end()
            assert lines[0].startswith("flash: cannot mount")
            assert lines[1] == "['/rom']"
            assert b.board.flash[0x10000:0x10010] == b"\x5a" * 16

    run(story)
