from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from samples import CIF, FRAME, PHONOPY, POSCAR

from phononbench_flows.outcomes import Reason
from phononbench_flows.structures import InputError, RawCrystal, ReadLimits, read_inputs
from phononbench_flows.structures.readers import MAX_LABEL

LABEL = re.compile(rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LABEL - 1}}}$")


DEFAULT_LIMITS = ReadLimits()


def read(*paths: Path, limits: ReadLimits = DEFAULT_LIMITS) -> list[RawCrystal]:
    raws = list(read_inputs(paths, limits))
    labels = [raw.label for raw in raws]
    assert len(set(labels)) == len(labels)
    assert all(LABEL.match(label) for label in labels)
    assert all((raw.rejection is None) == bool(raw.data) for raw in raws)
    for raw in raws:
        raw.source.encode()
    return raws


def reasons(raws: list[RawCrystal]) -> dict[str, Reason | None]:
    return {raw.label: raw.rejection.reason if raw.rejection else None for raw in raws}


def test_missing_input_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be found"):
        read_inputs([tmp_path / "no.cif"])
    with pytest.raises(InputError):
        read_inputs([])


def test_input_without_crystals_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="holds no crystal"):
        read(tmp_path)


def test_folder_takes_crystals_only_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "x.cif").mkdir()  # a folder, whatever its name
    for name in ("b.cif", "a.vasp", "POSCAR", "CONTCAR_2", "c.poscar", "x.cif/in.CIF", "x.cif/POSCAR"):
        (tmp_path / name).write_text(CIF)
    for name in ("notes.txt", "table.csv", "plot.png", "._b.cif", "band.yaml", "set.zip"):
        (tmp_path / name).write_text("x")
    (tmp_path / "data.json").write_text('{"energy": 1}')
    (tmp_path / "one.extxyz").write_text(FRAME)
    (tmp_path / "phonopy_disp.yaml").write_text(PHONOPY)
    (tmp_path / "p.yaml.xz").write_bytes(lzma.compress(PHONOPY.encode()))
    (tmp_path / "q.yaml.bz2").write_bytes(bz2.compress(PHONOPY.encode()))
    raws = read(tmp_path)
    assert [(raw.label, raw.format) for raw in raws] == [
        ("CONTCAR_2", "poscar"),
        ("POSCAR", "poscar"),
        ("a.vasp", "poscar"),
        ("b", "cif"),
        ("c.poscar", "poscar"),
        ("one.extxyz.1", "extxyz"),
        ("p.yaml.xz", "phonopy"),
        ("phonopy_disp.yaml", "phonopy"),
        ("q.yaml.bz2", "phonopy"),
        ("x.cif--POSCAR", "poscar"),
        ("x.cif--in", "cif"),
    ]
    assert {raw.data for raw in raws if raw.format == "phonopy"} == {PHONOPY.encode()}
    assert raws[-1].source == f"{tmp_path}/x.cif/in.CIF"


def test_odd_names(tmp_path: Path) -> None:
    names = [
        b"new\nline.cif",
        b"qu'o\"te.cif",
        "\N{GRINNING FACE}.cif".encode(),
        b"\xff\xfe.cif",
        b"-rf.cif",
        b"=1+1.cif",
        b"$where.cif",
        b"l" * 251 + b".cif",
        b"..a...b.cif",
        b"Dup.cif",
        b"dup.cif",
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(CIF)
    raws = read(tmp_path)
    assert len(raws) == len(names)
    assert not any(raw.rejection for raw in raws)
    assert [raw.label for raw in read(tmp_path)] == [raw.label for raw in raws]
    assert {"Dup", "dup"} <= {raw.label for raw in raws}
    assert not any(".." in raw.label for raw in raws)


def test_equal_labels_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.cif").write_text(CIF)
    labels = [raw.label for raw in read(*(tmp_path / folder for folder in "abc"), tmp_path / "a")]
    assert labels[0] == "x"
    assert all(re.fullmatch(r"x-[0-9a-f]{8}(-1)?", label) for label in labels[1:])


def test_what_cannot_be_opened_is_rejected(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.cif").write_text(CIF)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.cif").write_text(CIF)
    (root / "good.cif").write_text(CIF)
    (root / "inside.cif").symlink_to("good.cif")
    (root / "leads_out.cif").symlink_to(tmp_path / "outside.cif")
    (root / "dangling.cif").symlink_to("nowhere")
    (root / "loop.cif").symlink_to("loop.cif")
    (root / "folder.cif").symlink_to(tmp_path / "elsewhere")
    (root / "up").symlink_to(root)
    os.mkfifo(root / "pipe.cif")
    (root / "empty.extxyz").write_text("")
    (root / "large.cif").write_text("x" * 2001)
    (root / "bad.yaml.xz").write_bytes(b"no xz")
    (root / "bomb.yaml.xz").write_bytes(lzma.compress(bytes(10_000)))
    (root / "cut.yaml.bz2").write_bytes(bz2.compress(PHONOPY.encode())[:-5])
    assert reasons(read(root, limits=ReadLimits(max_bytes=2000))) == {
        "good": None,
        "inside": None,
        "leads_out": Reason.UNREADABLE_FILE,
        "dangling": Reason.UNREADABLE_FILE,
        "loop": Reason.UNREADABLE_FILE,
        "folder": Reason.UNREADABLE_FILE,
        "pipe": Reason.UNREADABLE_FILE,
        "empty.extxyz": Reason.UNPARSABLE,
        "large": Reason.FILE_TOO_LARGE,
        "bad.yaml.xz": Reason.UNREADABLE_FILE,
        "bomb.yaml.xz": Reason.FILE_TOO_LARGE,
        "cut.yaml.bz2": Reason.UNREADABLE_FILE,
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_modes(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(CIF)
    (tmp_path / "a.cif").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    assert set(reasons(read(tmp_path)).values()) == {Reason.UNREADABLE_FILE}


def test_refused_permission_is_a_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.cif").write_text(CIF)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    [raw] = read(tmp_path)
    assert raw.rejection is not None
    assert raw.rejection.reason == Reason.UNREADABLE_FILE
    assert "Permission denied" in raw.rejection.detail


def test_single_files(tmp_path: Path) -> None:
    for name in ("x.cif", "POSCAR"):
        (tmp_path / name).write_text(CIF)
    os.mkfifo(tmp_path / "pipe.cif")
    (tmp_path / "model.pth").write_text("x")
    raws = read(*(tmp_path / name for name in ("x.cif", "POSCAR", "pipe.cif", "model.pth")))
    assert reasons(raws) == {
        "x": None,
        "POSCAR": None,
        "pipe": Reason.UNREADABLE_FILE,
        "model.pth": Reason.UNSUPPORTED_FILE,
    }


def test_list_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.cif").write_text(CIF)
    (tmp_path / "sub" / "POSCAR").write_text(POSCAR)
    (tmp_path / "other.lst").write_text("sub/a.cif\n")
    listing = tmp_path / "list.txt"
    listing.write_text("# comment\n\nsub/a.cif\r\n  sub/POSCAR\nmissing.cif\nother.lst\n")
    assert reasons(read(listing)) == {
        "sub--a": None,
        "sub--POSCAR": None,
        "missing": Reason.UNREADABLE_FILE,
        "other.lst": Reason.UNSUPPORTED_FILE,
    }


# -- extxyz ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 1])
def test_one_bad_frame_does_not_spoil_the_others(tmp_path: Path, count: int) -> None:
    path = tmp_path / "many.extxyz"
    path.write_text(FRAME + f"{count}\n" + FRAME[2:] + FRAME)
    raws = read(path)
    assert [raw.source for raw in raws] == [f"{path}#{n}" for n in (1, 2, 3)]
    assert reasons(raws) == {"many.extxyz.1": None, "many.extxyz.2": Reason.UNPARSABLE, "many.extxyz.3": None}
    assert raws[0].data == raws[2].data == FRAME.encode()


def test_frame_without_a_count(tmp_path: Path) -> None:
    path = tmp_path / "many.extxyz"
    path.write_text("two\n" + FRAME[2:] + FRAME)
    assert reasons(read(path)) == {"many.extxyz.1": Reason.UNPARSABLE, "many.extxyz.2": None}
    # It is not clear where the frame before it ends, so that one is rejected with it.
    path.write_text(FRAME + "two\n" + FRAME[2:] + FRAME)
    assert reasons(read(path)) == {"many.extxyz.1": Reason.UNPARSABLE, "many.extxyz.2": None}


def test_frames_that_are_too_large_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "many.xyz"
    path.write_text(FRAME + "40\n\n" + "H 0 0 0\n" * 40 + "\n\n" + FRAME + "999999999999\nlast\nH 0 0 0\n")
    assert list(reasons(read(path, limits=ReadLimits(max_bytes=200))).values()) == [
        None,
        Reason.FILE_TOO_LARGE,
        None,
        Reason.UNPARSABLE,
    ]


# -- tables ----------------------------------------------------------------------------------------------------


def table(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def test_table(tmp_path: Path) -> None:
    rows = [
        ["", "Material_ID", "CIF"],
        ["0", "mp-1", CIF],
        ["1", "mp-2", POSCAR],
        ["2", "mp-3", '{"lattice": {}}'],
        ["3", "mp-4", ""],
        ["4", "mp-5"],
        ["5", "", CIF],
        ["6", "mp-1", CIF],
        ["7", "../../etc/passwd", CIF],
        ["8", "big", "x" * 2001],
    ]
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(("\ufeff" + table(rows)).encode()))
    raws = read(path, limits=ReadLimits(max_bytes=2000))
    assert [raw.format for raw in raws] == ["cif", "poscar", "json", "", "", "cif", "cif", "cif", "poscar"]
    assert [raw.source for raw in raws] == [f"{path}#{n}" for n in range(1, 10)]
    assert [raw.label for raw in raws][:6] == ["mp-1", "mp-2", "mp-3", "mp-4", "mp-5", "t.csv.gz.6"]
    found = list(reasons(raws).values())
    assert found[3:5] == [Reason.UNPARSABLE] * 2
    assert found[8] == Reason.FILE_TOO_LARGE


def test_table_without_a_structure_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,energy\n1,2\n")
    with pytest.raises(InputError, match="no column"):
        read(tmp_path / "t.csv")


def test_table_that_breaks_off(tmp_path: Path) -> None:
    rows = [["id", "structure"], *([str(n), CIF + os.urandom(200).hex()] for n in range(200))]
    packed = gzip.compress(table(rows).encode())
    path = tmp_path / "t.csv.gz"
    path.write_bytes(packed[: len(packed) // 2])
    raws = read(path)
    assert 1 < len(raws) < 200
    assert [reason for reason in reasons(raws).values() if reason] == [Reason.UNREADABLE_FILE]
    path.write_bytes(b"no gz")
    assert list(reasons(read(path)).values()) == [Reason.UNREADABLE_FILE]


def test_table_with_an_endless_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"id,cif\na,ok\nb," + b"x" * 1_000_000))
    assert list(reasons(read(path, limits=ReadLimits(max_bytes=50_000))).values()) == [None, Reason.FILE_TOO_LARGE]


# -- archives --------------------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.zip"
    link = zipfile.ZipInfo("link.cif")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.cif", CIF)
        archive.writestr("a/X.cif", CIF)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/x.cif", POSCAR)
        archive.writestr("frames.extxyz", FRAME * 2)
        archive.writestr("readme.md", "ignored")
        archive.writestr("__MACOSX/a/._x.cif", "ignored")
        for name in ("../evil.cif", "/abs.cif", "..\\evil2.cif", "C:\\evil3.cif", "a/../../b.cif"):
            archive.writestr(name, CIF)
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", b"PK")
        archive.writestr("big.cif", bytes(2_000_001))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    raws = read(path)
    assert list(work.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.zip", "work"]
    found = {raw.source.removeprefix(f"{path}!"): raw.rejection.reason if raw.rejection else None for raw in raws}
    assert found == {
        "a/x.cif": None,
        "a/X.cif": None,
        "frames.extxyz#1": None,
        "frames.extxyz#2": None,
        **dict.fromkeys(
            ("../evil.cif", "/abs.cif", "..\\evil2.cif", "C:\\evil3.cif", "a/../../b.cif", "link.cif"),
            Reason.UNSAFE_ARCHIVE_MEMBER,
        ),
        "inner.zip": Reason.UNSUPPORTED_FILE,
        "big.cif": Reason.FILE_TOO_LARGE,
    }
    assert [raw.data for raw in raws if raw.source.endswith("a/x.cif")] == [CIF.encode(), POSCAR.encode()]


def test_encrypted_member(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", {"a.cif": CIF.encode(), "b.cif": CIF.encode()})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    assert reasons(read(path)) == {"a": Reason.UNSUPPORTED_FILE, "b": None}


def test_damaged_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", {"a.cif": os.urandom(5000), "b.cif": CIF.encode()})
    data = bytearray(path.read_bytes())
    data[1000:1010] = bytes(10)
    path.write_bytes(data)
    assert reasons(read(path)) == {"a": Reason.UNREADABLE_FILE, "b": None}
    path.write_bytes(data[:2000])
    assert reasons(read(path)) == {"set.zip": Reason.UNREADABLE_FILE}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bomb(tmp_path: Path, kind: str) -> None:
    count, size = 60, 1_900_000
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        zipped(path, {f"{n}.cif": b" " * size for n in range(count)})
    else:
        tarred(path, {f"{n}.cif": b" " * size for n in range(count)})
    raws = read(path)
    assert 1 < len(raws) < count
    assert [reason for reason in reasons(raws).values() if reason] == [Reason.FILE_TOO_LARGE]
    total = list(reasons(read(path, limits=ReadLimits(max_total_bytes=10_000_000))).values())
    assert len(total) < 8
    assert total[-1] == Reason.FILE_TOO_LARGE


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz", "set.tgz"])
def test_tar(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:

        def add(member: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
            info = tarfile.TarInfo(member)
            info.size, info.type, info.linkname = len(data), kind, to
            archive.addfile(info, io.BytesIO(data))

        add("folder", kind=tarfile.DIRTYPE)
        add("folder/a.cif", CIF.encode())
        add("frames.xyz", FRAME.encode() * 2)
        add("big.cif", bytes(2_000_001))
        add("../evil.cif", CIF.encode())
        add("/abs.cif", CIF.encode())
        add("link.cif", kind=tarfile.SYMTYPE, to="/etc/passwd")
        add("hard.cif", kind=tarfile.LNKTYPE, to="folder/a.cif")
        add("device.cif", kind=tarfile.CHRTYPE)
        add("pipe.cif", kind=tarfile.FIFOTYPE)
        add("inner.tar.gz", b"x")
        add("notes.txt", b"ignored")
        add("last.cif", CIF.encode())
    raws = read(path)
    found = {raw.source.removeprefix(f"{path}!"): raw.rejection.reason if raw.rejection else None for raw in raws}
    assert found == {
        "folder/a.cif": None,
        "frames.xyz#1": None,
        "frames.xyz#2": None,
        "big.cif": Reason.FILE_TOO_LARGE,
        **dict.fromkeys(
            ("../evil.cif", "/abs.cif", "link.cif", "hard.cif", "device.cif", "pipe.cif"),
            Reason.UNSAFE_ARCHIVE_MEMBER,
        ),
        "inner.tar.gz": Reason.UNSUPPORTED_FILE,
        "last.cif": None,
    }
    assert raws[-1].data == CIF.encode()


def test_damaged_tar(tmp_path: Path) -> None:
    path = tarred(tmp_path / "set.tar", {f"{n}.cif": CIF.encode() for n in range(4)})
    whole = path.read_bytes()
    for damaged in (
        whole[:1024] + b"garbage" * 100 + whole[1724:],  # a header in the middle
        whole[:2500],  # cut in a member
        whole[:2048],  # cut between members
        b"no tar at all",
    ):
        path.write_bytes(damaged)
        found = list(reasons(read(path)).values())
        assert found.count(Reason.UNREADABLE_FILE) == 1
        assert found[-1] == Reason.UNREADABLE_FILE
    packed = tarred(tmp_path / "set.tar.gz", {f"{n}.cif": os.urandom(5000) for n in range(20)})
    packed.write_bytes(packed.read_bytes()[:50_000])
    found = list(reasons(read(packed)).values())
    assert len(found) > 2
    assert [reason for reason in found if reason] == [Reason.UNREADABLE_FILE]


def test_tar_header_that_asks_for_all_memory(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.gz"
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    assert list(reasons(read(path)).values()) == [Reason.FILE_TOO_LARGE]
