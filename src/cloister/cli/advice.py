"""What to do about an error that doesn't say so itself: advice by its code, or by what it is about.

Rules kept here:

1. Every code of the rooms has advice; an error's own hint, which knows the case, comes before it.
2. Advice stands with the narrowest kind for which it is true: the code; the words that several codes begin
   with, as in ``evidence.certificate_expired``; the room, where it fits all that may go wrong there.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_ANEW: Final = "Ask whoever it is from to make it anew; what was signed can't be repaired."
_ANOTHER_COPY: Final = "Get another copy of it: this one was changed, cut off, or is something else."
_DEFECT: Final = (
    "This is a defect in a program that uses cloister: report it with the command that led to it."
)
_UPDATE: Final = "Use the version of cloister that wrote it, or a newer one."

ADVICE: Final = MappingProxyType(
    {
        "airlock": "Nothing left the site. Compare the job with the manifest's output constraints.",
        "attestation": "Ask the party whose evidence it is to make it anew.",
        "attestation.measurement": "Install the release that the manifest allows, or agree on this one.",
        "attestation.no_common_policy": "Agree on code that the manifests of all hospitals allow.",
        "attestation.simulated": "Run on hardware that attests itself, or allow simulated evidence.",
        "attestation.tcb": "Update the platform's firmware, or agree on this version.",
        "attestation.trust_store": "Pin the vendor's own root certificate as tee-root/NAME.pem.",
        "enclave.airlock_policy": "Correct the manifest's output constraints.",
        "enclave.model_file": _ANOTHER_COPY,
        "enclave.no_orchestrator": "Install the distribution that offers one, under cloister.orchestrator.",
        "evidence.certificate": "Ask the authority for one of that party, in its role, over its key.",
        "evidence.certificate_expired": "Ask the authority for a new certificate.",
        "evidence.certificate_not": "Wait until it holds, or ask the authority for one that holds now.",
        "evidence.certificate_revoked": "Ask the party what became of its key, and for a new certificate.",
        "evidence.certificate_untrusted": "Pin the root for that role as authority/ROLE/NAME.pem.",
        "evidence.checkpoint_malformed": _ANOTHER_COPY,
        "evidence.checkpoint_unsigned": "Compare the key with the log owner's; who changed its key has two.",
        "evidence.cosignature": "Let the witness cosign it:  cloister witness cosign FOLDER REQUEST",
        "evidence.crl": "Ask the authority for its newest revocation list.",
        "evidence.demand": "Leave that option out, or name an artifact that it is for.",
        "evidence.entry": "State the hash of what is large, not the thing itself.",
        "evidence.envelope_malformed": _ANOTHER_COPY,
        "evidence.envelope_unsigned": "Compare the pinned key with the party's own.",
        "evidence.export_malformed": _ANOTHER_COPY,
        "evidence.export_refused": "Name a job or a period that this workspace's logs know.",
        "evidence.export_unverified": "See what is wrong with it:  cloister verify EXPORT --trust FOLDER",
        "evidence.job": "Run it as a new job, with a job_id of its own.",
        "evidence.log_closed": _DEFECT,
        "evidence.log_exists": "Name a place where no log is yet.",
        "evidence.log_inconsistent": "Keep both checkpoints, and ask the log's owner for a proof.",
        "evidence.log_mismatch": "Restore the newest copy, or see what is still sound:  cloister log recover",
        "evidence.log_missing": "Restore the newest copy of the log; a party's evidence is not begun anew.",
        "evidence.log_rolled": "An older copy was restored. Restore the newest one.",
        "evidence.log_unwitnessed": "Let a witness see it:  cloister log proof, cloister witness cosign",
        "evidence.mapping": "Install cloister anew: the mapping is part of it.",
        "evidence.model": _ANOTHER_COPY,
        "evidence.out": "Name a size up to the log's own:  cloister log checkpoint tells it.",
        "evidence.pki": "Name a role, party and time for which the authority may vouch.",
        "evidence.proof": _ANEW,
        "evidence.receipt_malformed": _ANOTHER_COPY,
        "evidence.receipt_refused": "Correct what the message names and run the job again.",
        "evidence.segment_broken": "See which check fails:  cloister verify FOLDER --trust FOLDER",
        "evidence.segment_closed": _DEFECT,
        "evidence.segment_lost": "Look at the disk's space; the next segment states how many were lost.",
        "evidence.segment_malformed": _ANOTHER_COPY,
        "evidence.segment_secrets": "Name the opening key for which the segment was sealed.",
        "evidence.segment_unsent": "Look at where the segment's checkpoints are sent.",
        "evidence.statement_malformed": _ANOTHER_COPY,
        "evidence.statement_missing": "The workspace's log tells what happened; run the job again.",
        "evidence.statement_refused": _DEFECT,
        "evidence.statement_unknown": _UPDATE,
        "evidence.tiles": "Ask the log's owner to publish the tiles anew; copy the whole folder.",
        "evidence.timestamp": "Ask an authority that is pinned for a timestamp over this receipt.",
        "evidence.tree": "Restore the newest copy, or see what is still sound:  cloister log recover",
        "evidence.trust_conflict": "Give each party a key of its own for each role.",
        "evidence.trust_malformed": "Name the folder in which hub/, site/, hospital/ and tee-root/ are.",
        "evidence.trust_unknown": "Ask that party for its public key over a channel you trust.",
        "evidence.witness_refused": "See whom it follows by which keys:  cloister witness show FOLDER",
        "evidence.witness_stale": "Make the proof from the size that  cloister witness show FOLDER  tells.",
        "federation": "The log in the workspace tells what happened before.",
        "health": "Correct the table, or what is declared about it.",
        "health.no_library": 'Install it:  pip install "cloister[health]"',
        "health.salt_malformed": "Restore the salt from a copy; with another one the table's hash changes.",
        "health.salt_missing": "Restore the salt from a copy, or have one made:  cloister data JOB",
        "health.salt_permissions": "Let only its owner read it:  chmod 600 FILE",
        "input": "Correct that file, or name another, and run again.",
        "input.duplicate_key": "Keep one of the two.",
        "input.not_json": "Write a finite number there.",
        "internal.defect": "Run again with --debug on data you may show, and report what it prints.",
        "key.algorithm": "Choose another algorithm, or another key store.",
        "key.exists": "Use the key that is there, or choose another name.",
        "key.exportable": "Make the key in the token as one that can't leave it.",
        "key.hardware": "Look at the PKCS#11 module and the token that cloister.toml names.",
        "key.malformed": "Name a file with an Ed25519 key, or ECDSA on P-256 or P-384, in PEM.",
        "key.missing": "Bring the key back, or name the store in which it is.",
        "key.name": "Choose a name of letters, digits, dots, dashes and underscores.",
        "key.passphrase": "Name the file with the passphrase that the key was encrypted with.",
        "key.permissions": "Let only its owner read it:  chmod 600 FILE",
        "key.pin": "Correct the file that pkcs11_pin_file names; a token locks itself after a few tries.",
        "key.secret": "Write the passphrase or PIN into the file that the settings name.",
        "key.settings": "Name either a folder or a PKCS#11 token in cloister.toml.",
        "ledger.budget": "Ask for less: fewer rounds, more noise. What is spent doesn't come back.",
        "ledger.clock": "Set the machine's clock right, then run again.",
        "ledger.corrupt": "Restore the ledger from a copy; a budget can't be begun anew.",
        "ledger.exists": "Use the ledger that is there; a budget can't be begun anew.",
        "ledger.missing": "Restore the ledger from a copy; a budget can't be begun anew.",
        "ledger.newer": _UPDATE,
        "ledger.other": "Name the dataset as before, and what the manifest says about mode, unit and delta.",
        "ledger.reservation": _DEFECT,
        "ledger.rolled": "Restore the newest copy of the ledger; a budget can't be begun anew.",
        "ledger.settlement": _DEFECT,
        "ledger.too_many": "Ask for sampling and noise as earlier jobs on the dataset had; these go on.",
        "ledger.unavailable": "Look whether another process uses it, at the disk's space and permissions.",
        "model": "Correct the model in the job and in the request.",
        "policy": "Compare the request with the manifest.",
        "policy.wrong": "Get the document that its party signed, and compare the keys.",
        "privacy": "Correct the privacy and training sections of the job.",
        "signature.invalid": "It was changed, or another key signed it: get it again from whoever signed it.",
        "signature.tag": "It was changed, or was made with another secret key.",
        "storage.corrupt": "Restore the file from a copy.",
        "storage.exists": "Move it away or choose another name.",
        "storage.failed": "Look at the disk and at the folder's permissions, then run again.",
        "storage.forked": _DEFECT,
        "storage.in": "Wait for the other process to end, then run again.",
        "storage.no": "Free some space and run again.",
        "storage.permission": "Choose a folder you may write to.",
        "storage.uncertain": "Look whether it is there before you do it again.",
    }
)
"""By code, by the first words of a code, or by room."""


def advice_on(code: str) -> str:
    """The advice on a code: that of the longest beginning of it that has some; empty where none has."""
    fitting = [kind for kind in ADVICE if f"{code}_".startswith((f"{kind}_", f"{kind}."))]
    return ADVICE[max(fitting, key=len)] if fitting else ""
