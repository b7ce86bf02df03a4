"""E-mail addresses: which fields hold them, and domains of large free and of disposable providers."""

from collections.abc import Sequence
from functools import cache

import polars as pl

from n3r.rows.parts import Rows, slices

# Free mail providers with many users, by their own count or by rank of their sites, as of 2026.
_FREE = (
    "gmail.com googlemail.com outlook.com hotmail.com live.com msn.com hotmail.co.uk hotmail.fr "
    "hotmail.de hotmail.it hotmail.es outlook.fr outlook.de outlook.es outlook.jp outlook.com.br "
    "live.co.uk live.fr live.nl yahoo.com ymail.com rocketmail.com yahoo.co.uk yahoo.fr yahoo.de "
    "yahoo.it yahoo.es yahoo.ca yahoo.co.in yahoo.in yahoo.co.jp yahoo.com.br yahoo.com.au yahoo.com.mx "
    "yahoo.com.ar yahoo.com.sg yahoo.co.id yahoo.com.tw yahoo.com.hk yahoo.com.ph yahoo.com.vn aol.com "
    "aim.com icloud.com me.com mac.com proton.me protonmail.com pm.me tutanota.com tuta.io fastmail.com "
    "hey.com zoho.com mail.com email.com gmx.com gmx.de gmx.net gmx.at gmx.ch web.de t-online.de "
    "freenet.de posteo.de mailbox.org arcor.de orange.fr wanadoo.fr free.fr laposte.net sfr.fr neuf.fr "
    "bbox.fr libero.it virgilio.it tiscali.it alice.it tin.it mail.ru yandex.ru yandex.com ya.ru "
    "rambler.ru bk.ru list.ru inbox.ru ukr.net i.ua qq.com foxmail.com 163.com 126.com yeah.net "
    "sina.com sina.cn sohu.com aliyun.com 139.com 189.cn naver.com hanmail.net daum.net nate.com "
    "docomo.ne.jp ezweb.ne.jp softbank.ne.jp i.softbank.jp nifty.com rediffmail.com indiatimes.com "
    "wp.pl o2.pl onet.pl interia.pl op.pl seznam.cz centrum.cz azet.sk freemail.hu citromail.hu abv.bg "
    "mail.bg gmx.fr telenet.be skynet.be ziggo.nl kpnmail.nl planet.nl home.nl bol.com.br uol.com.br "
    "terra.com.br ig.com.br globo.com btinternet.com virginmedia.com sky.com ntlworld.com bigpond.com "
    "bigpond.net.au optusnet.com.au xtra.co.nz shaw.ca rogers.com sympatico.ca videotron.ca comcast.net "
    "verizon.net att.net sbcglobal.net bellsouth.net cox.net charter.net earthlink.net singnet.com.sg "
    "starhub.net.sg pacific.net.sg walla.com walla.co.il inbox.lv mynet.com "
)
FREE = frozenset(_FREE.split())


def is_free(domain: str) -> bool:
    """Whether a domain in lower case is one of a large free provider."""
    return domain in FREE


def is_disposable(domain: str) -> bool:
    """Whether a domain in lower case, or one above it, is one of a provider of disposable addresses."""
    listed = _disposable()
    return domain in listed or ("." in domain and domain.partition(".")[2] in listed)


@cache
def _disposable() -> frozenset[str]:
    from disposable_email_domains import blocklist

    return frozenset(blocklist)


def address_fields(rows: Rows, fields: Sequence[str]) -> list[str]:
    """The fields that hold e-mail addresses: most of their values have exactly one "@"."""
    signs = pl.col(fields).cast(pl.String).str.count_matches("@", literal=True) == 1
    lead = signs.sum().cast(pl.Int64) * 2 - signs.count()
    found = pl.concat(part.select(lead) for part in slices(rows, fields)).sum()
    return [column.name for column in found if column.item() > 0]
