"""What may be on the board: one entry a purchasable part, with what a buyer needs to order it and to replace it.

`Part` is the line of the bill of materials; symbol and footprint name KiCad's own libraries, or `tocsin:` for ours
(`symbols.py`). `alternate` is drop-in unless it says otherwise; where it has another land pattern in KiCad's library,
`ALTERNATE_FOOTPRINTS` names it and a test lays the two over each other.

`verified` says where number, package and rating were found again, one of KINDS first: a line that nobody could
confirm says so and says what to order from. All of it was read in stored public copies; stock, price and life cycle
were not looked at.
"""

from dataclasses import dataclass

KINDS = ("datasheet", "distributor listing", "used in", "unconfirmed: order from")


@dataclass(frozen=True)
class Part:
    """A line of the bill of materials. `body` is width, depth, height in mm for the 3D model; None: no body."""

    value: str
    symbol: str
    footprint: str
    maker: str
    number: str
    alternate: str
    datasheet: str
    about: str
    verified: str
    body: tuple[float, float, float] | None = None


_R = "Resistor_SMD:R_0402_1005Metric"
_C4 = "Capacitor_SMD:C_0402_1005Metric"
_C6 = "Capacitor_SMD:C_0603_1608Metric"
_YAGEO = "https://www.yageo.com/upload/media/product/productsearch/datasheet/rchip/PYu-RC_Group_51_RoHS_L_12.pdf"
_SAMSUNG = "https://product.samsungsem.com/mlcc/"


def _resistor(value: str, yageo: str, panasonic: str, listed: str) -> Part:
    return Part(
        value, "Device:R", _R, "Yageo", f"RC0402FR-07{yageo}L", f"Panasonic ERJ-2RKF{panasonic}X", _YAGEO,
        f"Resistor {value} 1 % 0402", f"{listed}; alternate used in public bills of materials", (1.0, 0.5, 0.35),
    )  # fmt: skip


def _capacitor(value: str, number: str, murata: str, about: str, listed: str, large: bool = False) -> Part:
    return Part(
        value, "Device:C", _C6 if large else _C4, "Samsung Electro-Mechanics", number, f"Murata {murata}",
        f"{_SAMSUNG}{number}.do", about, f"{listed}; alternate used in public bills of materials",
        (1.6, 0.8, 0.8) if large else (1.0, 0.5, 0.5),
    )  # fmt: skip


CATALOGUE: dict[str, Part] = {
    "module": Part(
        "ESP32-S3-MINI-1-N8",
        "RF_Module:ESP32-S3-MINI-1",
        "RF_Module:ESP32-S2-MINI-1",
        "Espressif",
        "ESP32-S3-MINI-1-N8",
        "Espressif ESP32-S3-MINI-1-N4R2 (same lands; 4 MB flash: no room for a second image)",
        "https://www.espressif.com/sites/default/files/documentation/esp32-s3-mini-1_mini-1u_datasheet_en.pdf",
        "BLE 5 module, 8 MB flash, PCB antenna, 15.4 x 20.5 x 2.4 mm",
        "used in public boards with this module (approval FCC 2AC7Z-ESPS3MINI1); alternate: LCSC C3013941",
        (15.4, 20.5, 2.4),
    ),
    "charger": Part(
        "BQ24074RGT",
        "Battery_Management:BQ24074RGT",
        "Package_DFN_QFN:VQFN-16-1EP_3x3mm_P0.5mm_EP1.6x1.6mm",
        "Texas Instruments",
        "BQ24074RGTR",
        "Texas Instruments BQ24074RGTT (same part, small reel)",
        "https://www.ti.com/lit/ds/symlink/bq24074.pdf",
        "Li-ion charger with power path, 28 V tolerant input, NTC (SLUS810)",
        "datasheet SLUS810: pins (table 7-1), limits (8.3), orderable addendum names both reels; LCSC C54313",
        (3.0, 3.0, 0.9),
    ),
    "ldo": Part(
        "RT9080-33GJ5",
        "tocsin:RT9080",
        "Package_TO_SOT_SMD:SOT-23-5",
        "Richtek",
        "RT9080-33GJ5",
        "Torex XC6220B331MR-G (same pins, 8 uA)",
        "https://www.richtek.com/assets/product_file/RT9080/DS9080-09.pdf",
        "LDO 3.3 V 600 mA, 2 uA quiescent (DS9080-09)",
        "distributor listing LCSC C841192, datasheet DS9080-09; alternate: same pins in KiCad's symbol",
        (2.9, 1.6, 1.1),
    ),
    "gauge": Part(
        "MAX17048G",
        "tocsin:MAX17048",
        "Package_DFN_QFN:TDFN-8-1EP_2x2mm_P0.5mm_EP0.8x1.2mm",
        "Analog Devices",
        "MAX17048G+T10",
        "Analog Devices MAX17048G+T (same part, large reel)",
        "https://www.analog.com/media/en/technical-documentation/data-sheets/max17048-max17049.pdf",
        "Fuel gauge, one cell, I2C 0x36 (19-6171)",
        "datasheet 19-6171 rev 7; both numbers used in public boards",
        (2.0, 2.0, 0.8),
    ),
    "haptic": Part(
        "DRV2605LDGS",
        "Driver_Haptic:DRV2605LDGS",
        "Package_SO:VSSOP-10_3x3mm_P0.5mm",
        "Texas Instruments",
        "DRV2605LDGSR",
        "Texas Instruments DRV2605LDGST (same part, small reel)",
        "https://www.ti.com/lit/ds/symlink/drv2605l.pdf",
        "LRA driver with resonance tracking, I2C 0x5A (SLOS854)",
        "distributor listing LCSC C527464, alternate C425927; pins as in SLOS854D",
        (3.0, 3.0, 1.1),
    ),
    "microphone": Part(
        "ICS-43434",
        "Sensor_Audio:ICS-43434",
        "Sensor_Audio:InvenSense_ICS-43434-6_3.5x2.65mm",
        "TDK InvenSense",
        "ICS-43434",
        "none that drops in; Knowles SPH0645LM4H-1 after a change of the land pattern",
        "https://invensense.tdk.com/wp-content/uploads/2016/02/DS-000069-ICS-43434-v1.2.pdf",
        "I2S microphone, bottom port, 64 dBA (DS-000069)",
        "datasheet DS-000069 v1.2; LCSC C5656610; no drop-in alternate was found",
        (3.5, 2.65, 0.98),
    ),
    "hall": Part(
        "DRV5032FB",
        "tocsin:DRV5032",
        "Package_TO_SOT_SMD:SOT-23",
        "Texas Instruments",
        "DRV5032FBDBZR",
        "Texas Instruments DRV5032FADBZR (20 Hz, 1.6 uA)",
        "https://www.ti.com/lit/ds/symlink/drv5032.pdf",
        "Hall switch, omnipolar 4.8 mT, push-pull, 5 Hz (SLVSDC7)",
        "distributor listing LCSC C2655033; alternate: DigiKey 7400094",
        (2.9, 1.3, 1.1),
    ),
    "usb_esd": Part(
        "USBLC6-2SC6",
        "Power_Protection:USBLC6-2SC6",
        "Package_TO_SOT_SMD:SOT-23-6",
        "STMicroelectronics",
        "USBLC6-2SC6",
        "Littelfuse SRV05-4HTG-D (four channels, joined two and two by our copper)",
        "https://www.st.com/resource/en/datasheet/usblc6-2.pdf",
        "ESD protection of USB D+ D- VBUS, IEC 61000-4-2 level 4",
        "distributor listing LCSC C7519; alternate: same pins in KiCad's symbol, used so in public boards",
        (2.9, 1.6, 1.1),
    ),
    "accelerometer": Part(
        "LIS2DH12",
        "tocsin:LIS2DH12",
        "Package_LGA:LGA-12_2x2mm_P0.5mm",
        "STMicroelectronics",
        "LIS2DH12TR",
        "STMicroelectronics LIS2DE12TR (8 bit)",
        "https://www.st.com/resource/en/datasheet/lis2dh12.pdf",
        "Accelerometer, free-fall and wake interrupt, I2C 0x19",
        "distributor listing LCSC C110926, datasheet DocID025056; alternate: same pins in KiCad's symbol",
        (2.0, 2.0, 1.0),
    ),
    "crystal": Part(
        "32.768 kHz",
        "Device:Crystal",
        "Crystal:Crystal_SMD_3215-2Pin_3.2x1.5mm",
        "Abracon",
        "ABS07-32.768KHZ-T",
        "Epson Q13FC13500004 (FC-135)",
        "https://abracon.com/Resonators/ABS07.pdf",
        "Crystal 12.5 pF, 20 ppm, ESR 70 kOhm",
        "distributor listing (LCSC: 12.5 pF, 20 ppm, 70 kOhm, SMD3215-2P); alternate: LCSC C32346",
        (3.2, 1.5, 0.9),
    ),
    "usb": Part(
        "USB-C 2.0",
        "Connector:USB_C_Receptacle_USB2.0_16P",
        "Connector_USB:USB_C_Receptacle_HRO_TYPE-C-31-M-12",
        "Korean Hroparts",
        "TYPE-C-31-M-12",
        "GCT USB4105-GF-A (same pegs and legs within 0.03 mm, lands inside ours)",
        "https://datasheet.lcsc.com/lcsc/1811131825_Korean-Hroparts-Elec-TYPE-C-31-M-12_C165948.pdf",
        "USB-C receptacle, 16 contacts, through-hole shell",
        "distributor listing LCSC C165948, KiCad's own footprint; alternate: DigiKey 11198441",
        (8.94, 7.35, 3.16),
    ),
    "sos": Part(
        "B3U-1000P",
        "Switch:SW_Push",
        "Button_Switch_SMD:SW_SPST_B3U-1000P",
        "Omron",
        "B3U-1000P",
        "Omron B3U-1000PM (same part, small reel)",
        "https://omronfs.omron.com/en_US/ecb/products/pdf/en-b3u.pdf",
        "Tactile switch from above, 1.5 N, 0.15 mm, 1.6 mm high",
        "distributor listing LCSC C231329, KiCad's own footprint; alternate used in public boards",
        (3.0, 2.5, 1.6),
    ),
    "side": Part(
        "B3U-3000P",
        "Switch:SW_Push",
        "Button_Switch_SMD:SW_SPST_B3U-3000P",
        "Omron",
        "B3U-3000P",
        "Omron B3U-3000PM (same part, small reel)",
        "https://omronfs.omron.com/en_US/ecb/products/pdf/en-b3u.pdf",
        "Tactile switch from the side, 1.6 N, 0.2 mm",
        "distributor listing LCSC C963349, KiCad's own footprint; alternate: DigiKey 2754805",
        (3.0, 2.5, 1.7),
    ),
    "battery_socket": Part(
        "BATTERY",
        "Connector_Generic_MountingPin:Conn_01x02_MountingPin",
        "Connector_JST:JST_SH_SM02B-SRSS-TB_1x02-1MP_P1.00mm_Horizontal",
        "JST",
        "SM02B-SRSS-TB(LF)(SN)",
        "JST SM02B-SRSS-TB (same part, ordered without the suffix for tin)",
        "https://www.jst-mfg.com/product/pdf/eng/eSH.pdf",
        "Battery socket, 1.0 mm, keyed, 1 A",
        "distributor listing LCSC C160402, KiCad's own footprint",
        (4.0, 4.25, 2.95),
    ),
    "motor_pads": Part(
        "LRA 8 x 3.25",
        "tocsin:LRA",
        "tocsin:LRA_8mm",
        "Vybronics",
        "VG0832022D",
        "Jinlong G0832022D (the same motor under its maker's name)",
        "https://www.digikey.com/en/products/detail/vybronics-inc/VG0832022D/9974288",
        "Linear resonant actuator 8 mm, 235 Hz, 1.8 Vrms, 22.5 Ohm, 100 mm leads; glued on with 3M 467MP",
        "distributor listing DigiKey 9974288; alternate: used in MikroE Vibro Motor 3 Click",
        (8.0, 8.0, 3.31),  # 3.25 and its tape
    ),
    "ntc": Part(
        "10k NTC",
        "Device:Thermistor_NTC",
        _R,
        "TDK",
        "NTCG103UH103JT1",
        "Murata NCP15XV103J03RC",
        "https://product.tdk.com/en/search/sensor/ntc/chip-ntc-thermistor/info?part_no=NTCG103UH103JT1",
        "Thermistor 10 kOhm 5 % B25/50 3900 K 0402, beside the battery: charging stops at 47 degrees C",
        "used in public detector electronics, which print its B values; alternate used in public firmware",
        (1.0, 0.5, 0.5),
    ),
    "r1k": _resistor("1k", "1K", "1001", "used in public bills of materials"),
    "r3k3": _resistor("3.3k", "3K3", "3301", "distributor listing LCSC C137992"),
    "r4k7": _resistor("4.7k", "4K7", "4701", "distributor listing LCSC C105871"),
    "r5k1": _resistor("5.1k", "5K1", "5101", "distributor listing LCSC C105872"),
    "r10k": _resistor("10k", "10K", "1002", "used in public bills of materials"),
    "r100k": _resistor("100k", "100K", "1003", "distributor listing LCSC C60491"),
    "r1m": _resistor("1M", "1M", "1004", "distributor listing LCSC C138033"),
    "c18p": _capacitor(
        "18p",
        "CL05C180JB5NNNC",
        "GRM1555C1H180JA01D",
        "Capacitor 18 pF C0G 50 V 0402",
        "used in public bills of materials (50 V C0G)",
    ),
    "c10n": _capacitor(
        "10n",
        "CL05B103KB5NNNC",
        "GRM155R71H103KA88D",
        "Capacitor 10 nF X7R 50 V 0402",
        "distributor listing LCSC C15195",
    ),
    "c100n": _capacitor(
        "100n",
        "CL05B104KO5NNNC",
        "GRM155R71C104KA88D",
        "Capacitor 100 nF X7R 16 V 0402",
        "distributor listing LCSC C1525",
    ),
    "c1u": _capacitor(
        "1u", "CL05A105KA5NQNC", "GRM155R61E105KA12D", "Capacitor 1 uF X5R 25 V 0402", "distributor listing LCSC C52923"
    ),
    "c4u7": _capacitor(
        "4.7u",
        "CL10A475KO8NNNC",
        "GRM188R61C475KAAJD",
        "Capacitor 4.7 uF X5R 16 V 0603",
        "distributor listing LCSC C19666",
        True,
    ),
    "c10u": _capacitor(
        "10u",
        "CL10A106KP8NNNC",
        "GRM188R61A106KE69D",
        "Capacitor 10 uF X5R 10 V 0603",
        "distributor listing LCSC C19702",
        True,
    ),
    "pad": Part(
        "TP", "Connector:TestPoint", "TestPoint:TestPoint_Pad_D1.0mm", "", "", "", "", "Test point, bare copper", ""
    ),
}

# Footprint of an alternate whose lands differ from ours, in KiCad's library
ALTERNATE_FOOTPRINTS = {"usb": "Connector_USB:USB_C_Receptacle_GCT_USB4105-xx-A_16P_TopMnt_Horizontal"}

# Bought for the badge, not mounted on the board: what, maker, number, alternate, reference, how many, confirmed by
LOOSE = (
    ("Battery LiPo 500 mAh with protection, at most 3.6 x 34.5 x 52 mm; plug SHR-02V-S, 50 mm leads by the assembler",
     "Renata", "ICP303450PA-02",
     "none confirmed: a 403450 pack of 650 mAh, at most 4.2 x 34.5 x 52 mm, protected, UN 38.3 and IEC 62133 papers",
     "https://www.renata.com/en-us/downloads/?product=icp303450pa-02", 1,
     "used in a public design that quotes its datasheet: size, 500 mAh, protection, 0 to 45 degrees C"),
    ("Screw M1.6 x 5 thread-forming for plastics, countersunk head of at most 3.2 mm", "EJOT", "Delta PT 16x5",
     "any thread-forming M1.6 x 5 for a 1.3 mm hole", "https://www.ejot.com/deltapt", 4,
     "unconfirmed: order from EJOT's Delta PT table (no source names this size)"),
    ("Sound gasket: foam 0.79 mm, adhesive below, film of 0.05 mm above, cut as docs/hardware.md says", "Rogers",
     "PORON 4701-30, 0.79 mm", "any foam of 0.8 mm that 60 kPa presses by a quarter",
     "https://www.rogerscorp.com/elastomeric-material-solutions/poron-industrial-polyurethanes", 1,
     "used in a public design as a microphone's gasket of this thickness; datasheet of the 4701-30"),
    ("Transfer tape 0.06 mm, under the battery 30 x 45 mm, under the motor 8 mm", "3M", "467MP", "3M 468MP (0.13 mm)",
     "3M technical data, adhesive transfer tapes with adhesive 200MP: 467MP and 468MP", 1,
     "used in public designs, which give its 0.06 mm and the alternate's 0.13 mm"),
    ("Magnet N42 or stronger, disc 5 x 2 mm, for the lanyard plug", "Supermagnete", "S-05-02-N", "any N42 to N52 5 x 2",
     "https://www.supermagnete.de/eng/disc-magnets-neodymium/disc-magnet-5mm-2mm_S-05-02-N", 2,
     "distributor listing: the maker's own shop page; public designs call today's grade N52N"),
)  # fmt: skip
