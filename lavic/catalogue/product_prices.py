"""Prices as shops write them -> an amount and a currency."""

import math
import re
from typing import Any

SIGNS = {  # the longest first: A$ is no US dollar
    "AU$": "AUD", "CA$": "CAD", "HK$": "HKD", "NZ$": "NZD", "US$": "USD", "A$": "AUD", "C$": "CAD", "R$": "BRL",
    "S$": "SGD", "€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW", "₺": "TRY", "₽": "RUB",
    "₴": "UAH", "₪": "ILS", "zł": "PLN", "Kč": "CZK", "Ft": "HUF", "lei": "RON",
}  # fmt: skip
CODES = """
    AED ARS AUD BDT BGN BHD BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JOD JPY KES KRW KWD KZT
    LKR MAD MXN MYR NGN NOK NZD OMR PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH USD UYU VND ZAR
"""
NUMBER = re.compile(r"\d[\d.,'’\s\u00a0\u202f]*")
WORD = re.compile(r"[A-Za-z]{3,}")


def price(cell: Any) -> tuple[float, str] | None:
    """Returns the amount and the currency's code ("" where it is not said) of a price; None where there is none.

    A number is what it is. In a text the last comma or point divides the cents unless three figures follow it:
    `1.234,56 €`, `USD 12.99`, `1,234`. An object names its amount and its currency, as Google's and Shopify's do.
    """
    if isinstance(cell, dict):
        found = next((price(cell[name]) for name in ("amount", "value", "price") if name in cell), None)
        code = next((str(cell[name]) for name in ("currency", "currencyCode", "currency_code") if cell.get(name)), "")
        return (found[0], code or found[1]) if found else None
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        return (float(cell), "") if math.isfinite(cell) else None
    found_number = NUMBER.search(cell) if isinstance(cell, str) else None
    if found_number is None:
        return None
    return _amount(found_number[0]), _currency(cell.replace(found_number[0], " "))


def _amount(written: str) -> float:
    figures = re.sub(r"[\s'’\u00a0\u202f]", "", written).rstrip(".,")
    cents = re.search(r"[.,](\d{1,2}|\d{4,})$", figures)
    if cents is None:
        return float(re.sub(r"[.,]", "", figures))
    return float(f"{re.sub(r'[.,]', '', figures[: cents.start()]) or '0'}.{cents[1]}")


def _currency(beside: str) -> str:
    """Returns the code of what stands beside the number: other words, such as RRP, are none."""
    code = next((word.upper() for word in WORD.findall(beside) if len(word) == 3 and word.upper() in CODES), "")
    return code or next((name for sign, name in SIGNS.items() if sign in beside), "")
