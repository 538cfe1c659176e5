"""The configuration of `subarch record`: one flat, frozen record whose keys are the command-line options.

Importing this module imports no network library.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from subarch.run.configuration import Amount, File, Number, Text

LONGEST_PIECE = 48
"""Words of a text: about 64 tokens of a BERT-like tokenizer, all that a trial reads of a text by default."""


class RecordConfig(BaseModel):
    """What to record, and from where. Construct it with `configuration.load`, which raises `InvalidConfig`.

    There is no key for the secret itself: it is read from the environment, and so never stands in a file or a history.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: Text = Field(
        description="Address of an OpenAI-compatible server, as http://localhost:8000/v1, or of its embeddings"
    )
    model: Text = Field(description="Name of the model, as the server knows it")
    corpus: list[Text] = Field(
        min_length=1, description="Text: files of text or records, folders, datasets:NAME[:SPLIT]"
    )
    text_column: Text = Field("text", description="Column of the text in files of records and data sets")
    out: File = Field(
        description="Parquet file to write, with the columns text, vector and group; texts that it holds already stay"
    )
    prompt: Text | None = Field(
        None, description="Text put before every text that is sent, as it is; the file holds texts without it"
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=10**5,
        description="Width to ask for, of models that can shorten their vectors; null: the model's",
    )
    max_words: int = Field(
        LONGEST_PIECE,
        ge=3,
        le=5000,
        description="Longer texts are cut at ends of sentences or words; 48 words are about 64 tokens, all that a "
        "trial reads of a text by default",
    )
    limit: int | None = Field(None, ge=1, le=10**9, description="Texts at most, the first ones; null: all")
    texts_per_request: int = Field(
        32, ge=1, le=2048, description="Texts in one request; some servers take 32 at most, OpenAI's 2048"
    )
    concurrency: int = Field(4, ge=1, le=256, description="Requests at the same time")
    requests_per_minute: Number | None = Field(
        None, description="Requests started per minute at most; null: as fast as they are answered"
    )
    timeout: Number = Field(60.0, description="Seconds without an answer after which a request is tried again")
    price: Amount | None = Field(None, description="Price of a million tokens, to say the cost before it is paid")
    key_variable: Text = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the key; without it none is sent"
    )

    @field_validator("out")
    @classmethod
    def _check_out(cls, out: File) -> File:
        if out.suffix.lower() != ".parquet":
            raise ValueError("vectors are written as Parquet; let the name end in .parquet")
        return out
