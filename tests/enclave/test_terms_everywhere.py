"""The terms of hardware have one name in every document, and the pages tell each of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from cloister.core.canonical import parse
from cloister.core.documents import load_yaml
from cloister.enclave import AppraisalPolicy
from cloister.enclave.attestation import Gpus, LowestVersions
from cloister.enclave.launch_file import load_launch_file
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.evidence.hardware_terms import HardwareTerms, ProductLine
from cloister.policy.attestation_terms import AttestationTerms, DraftAttestation
from tests.conftest import ROOT

HOW_TO = ROOT / "docs" / "how-to"


@pytest.mark.parametrize(
    "document", [AttestationTerms, DraftAttestation, ManifestAttestation, AppraisalPolicy]
)
def test_every_document_has_every_term_by_its_one_name_and_with_one_meaning(
    document: type[BaseModel],
) -> None:
    assert issubclass(document, HardwareTerms)
    for name, field in HardwareTerms.model_fields.items():
        assert document.model_fields[name].annotation == field.annotation
        assert document.model_fields[name].get_default(call_default_factory=True) == field.get_default(
            call_default_factory=True
        )


def test_the_page_tells_every_term_and_no_other() -> None:
    page = (HOW_TO / "verify-a-machine.md").read_text()
    table = page.partition("| term | asks |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(HardwareTerms.model_fields)


def test_the_policy_on_the_page_is_one() -> None:
    page = (HOW_TO / "verify-a-machine.md").read_text()
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    policy = AppraisalPolicy.from_json(parse(shown.replace("8922ebbd...7bf0", "ab" * 48).encode()))
    assert policy.amd_lines == (ProductLine.MILAN,)
    assert not policy.allows_no_machine


def test_the_policy_of_a_client_on_the_page_is_one() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", (HOW_TO / "secure-inference.md").read_text(), re.DOTALL)
    policy = AppraisalPolicy.from_json(parse(shown.replace("<96 hex digits>", "ab" * 48).encode()))
    assert policy.for_some_machine().amd_lines == (ProductLine.GENOA,)


def test_the_manifests_terms_on_the_page_are_terms(tmp_path: Path) -> None:
    page = (HOW_TO / "bring-your-own-data.md").read_text()
    (shown,) = re.findall(r"```yaml\n(attestation:\n.*?)```", page, re.DOTALL)
    (tmp_path / "shown.yaml").write_text(shown.replace("<96 hex digits>", "ab" * 48))
    document = load_yaml(tmp_path / "shown.yaml")
    assert isinstance(document, dict)
    terms = DraftAttestation.model_validate(document["attestation"])
    assert AppraisalPolicy.agreed_by([terms.complete("cd" * 48)]).minimum_tcb[ProductLine.TURIN].fmc == 1


def test_the_launch_file_on_the_page_is_one_but_for_the_files_it_names(tmp_path: Path) -> None:
    page = (HOW_TO / "run-in-a-confidential-vm.md").read_text()
    (shown,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    policy = tomllib.loads(shown.replace("<96 hex digits of the launch digest>", "ab" * 48))["policy"]
    assert AppraisalPolicy.from_json(policy).gpus is Gpus.REQUIRED
    text = re.sub(r"(?m)^certificates.*$|\[\[collateral\]\]\nkind.*\nfile.*", "", shown)
    (tmp_path / "enclave.toml").write_text(text.replace("<96 hex digits of the launch digest>", "ab" * 48))
    read = load_launch_file(tmp_path / "enclave.toml").terms.policy
    assert read is not None
    genoa = LowestVersions(boot_loader=10, tee=0, snp=23, microcode=84)
    assert read.minimum_tcb == {ProductLine.GENOA: genoa}
