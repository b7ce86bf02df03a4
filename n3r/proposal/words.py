"""What names of columns mean, in several languages: words in second place, after the values themselves.

Decisions:
- A name is taken apart where its case changes and at signs, without accents: "kundenNr" is kunden, nr. A word
  of a list stands for itself, or for the beginning of a longer part: "rechnungsname" begins with "rechnung".
- Words are those of shops' files in English, German, French, Spanish, Portuguese, Italian, Dutch and Polish.
"""

import re
from functools import cache

from anyascii import anyascii

_ROLES = {
    "email": "email mail emailaddress courriel correo emailadresse",
    "first_name": "first firstname fname given forename vorname prenom nombre nome imie voornaam",
    "last_name": "last lastname lname surname family familyname nachname familienname apellido apellidos "
    "cognome sobrenome nom nazwisko achternaam",
    "holder": "holder cardholder accountholder inhaber karteninhaber kontoinhaber titulaire titular intestatario "
    "rekeninghouder posiadacz",
    "name": "name names fullname username nickname screenname recipient empfaenger destinataire destinatario "
    "odbiorca contact ansprechpartner",
    "customer": "customer client kunde kunden cliente klient klant user account buyer member acheteur comprador "
    "kaeufer shopper visitor utilisateur usuario utente",
    "order": "order orders bestell bestellung auftrag commande pedido ordine encomenda zamowienie transaction "
    "transaktion txn trx invoice rechnung facture booking buchung purchase checkout object event case row "
    "record sale payment basket cart",
    "id": "id ids nr no num number ref reference key uuid guid code kennung nummer numero identifier referenz "
    "referencia",
    "label": "fraud fraudulent isfraud betrug betrugsfall fraude frode fraudulento label target chargeback "
    "rueckbelastung ruckbelastung impaye contracargo contestation scam abuse oszustwo spam bot default churn "
    "isbad bad dispute",
    "outcome": "status state class klasse clase classe outcome verdict decision result ergebnis resultat resultado "
    "flag flagged y review zustand etat estado esito legit legitimate genuine good reason risk risky",
    "legitimate": "legit legitimate genuine good valid ok clean approved accepted",
    "time": "date time datum zeit uhrzeit fecha data heure hora created erstellt timestamp ordered purchased "
    "placed bestelldatum kaufdatum ts datetime day when moment creation angelegt",
    "birth": "birth birthday birthdate dob geburt geburtstag geburtsdatum naissance nacimiento nascita nascimento "
    "urodzenia geboortedatum",
    "later": "updated modified shipped delivered paid refunded closed cancelled geaendert versand versendet "
    "geliefert livraison expedition envio entrega resolved reported expiry expires registered signup "
    "registration last previous member since",
    "segment": "country countrycode land laendercode pays pais paese kraj region market marketplace store shop "
    "channel kanal brand marque site",
    "group": "gender sex geschlecht sexe genero sesso age ageband agegroup altersgruppe ethnicity race "
    "nationality nationalitaet religion",
    "phone": "phone telephone tel telefon mobile mobil handy telefono telefoon portable cellphone",
    "address": "address street strasse adresse adres rue calle direccion indirizzo via endereco straat addr "
    "hausnummer",
    "ip": "ip ipaddress",
    "account": "iban bic pan card cardnumber kartennummer kontonummer",
    "postcode": "zip zipcode postcode postal plz postleitzahl cp cap codepostal",
    "amount": "amount betrag montant importe importo price preis prix precio prezzo total sum summe wert value "
    "bestellwert umsatz kwota bedrag valor",
}  # fmt: skip
_LONG = 5  # letters of a word that may begin a longer one
_WORDS = {role: frozenset(words.split()) for role, words in _ROLES.items()}
_STARTS = {role: tuple(w for w in words if len(w) >= _LONG) for role, words in _WORDS.items()}


@cache
def parts(name: str) -> tuple[str, ...]:
    """The words of a column's name in lower case, and the name as one word where that is another."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    german = name.translate(str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"}))
    found = re.findall(r"[a-z]+", anyascii(german).lower())
    whole = "".join(found)
    return tuple(found) if len(found) == 1 else (*found, whole)


def means(name: str, role: str) -> bool:
    """Whether a column's name has a word of a role."""
    return any(part in _WORDS[role] or part.startswith(_STARTS[role]) for part in parts(name))


def has_role(name: str) -> bool:
    """Whether a text has a word of any role, as headers have."""
    return len(name) <= 60 and any(means(name, role) for role in _ROLES)
