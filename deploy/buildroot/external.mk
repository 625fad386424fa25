include $(sort $(wildcard $(BR2_EXTERNAL_IAD_PATH)/package/*/*.mk))
