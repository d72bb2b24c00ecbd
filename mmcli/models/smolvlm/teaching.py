"""How SmolVLM is taught: its decoder, by conversations; the tower stays as it is."""

from mmcli.models.chat_teaching import ChatTeaching


class SmolVLMTeaching(ChatTeaching):
    """Conversations."""

    head = ("connector.",)
    frozen = ("vision.",)
    modules = ("model.text_model.", "model.vision_model.", "model.connector.", "lm_head.")
